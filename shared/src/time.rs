//! Times: milliseconds since 1970, written as RFC 3339 UTC with milliseconds.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::Offset;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC, in whole milliseconds since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `unix_ms` milliseconds after 1970, held between 1970 and the end of 9999.
    #[must_use]
    pub fn from_unix_ms(unix_ms: i64) -> Self {
        Self(unix_ms.clamp(0, 253_402_207_199_999))
    }

    /// This machine's clock.
    #[must_use]
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }

    /// Reads the form that is written here (`2026-11-21T12:00:00.007Z`) and no other one: a tenth of the work that it is to
    /// read any, and it is done for every message.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let [y @ .., b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.', f1, f2, f3, b'Z'] =
            text
        else {
            return None;
        };
        let [y1, y2, y3, y4] = y else { return None };
        let two = |one: &u8, other: &u8| Some(digit(one)? * 10 + digit(other)?);
        let year = i16::from(two(y1, y2)?) * 100 + i16::from(two(y3, y4)?);
        let ms = i32::from(two(f1, f2)?) * 10 + i32::from(digit(f3)?);
        let (month, day, hour) = (two(m1, m2)?, two(d1, d2)?, two(h1, h2)?);
        let moment = DateTime::new(year, month, day, hour, two(n1, n2)?, two(s1, s2)?, ms * 1_000_000).ok()?;
        Offset::UTC.to_timestamp(moment).ok().map(|moment| Self::from_unix_ms(moment.as_millisecond()))
    }

    /// As it is written.
    fn text(self) -> Option<[u8; 24]> {
        let moment = Offset::UTC.to_datetime(jiff::Timestamp::from_millisecond(self.0).ok()?);
        let two = |number: i16| u8::try_from(number).ok().map(|number| [b'0' + number / 10 % 10, b'0' + number % 10]);
        let ([y1, y2], [y3, y4]) = (two(moment.year() / 100)?, two(moment.year() % 100)?);
        let ([m1, m2], [d1, d2]) = (two(moment.month().into())?, two(moment.day().into())?);
        let ([h1, h2], [n1, n2]) = (two(moment.hour().into())?, two(moment.minute().into())?);
        let ([s1, s2], [f1, f2]) = (two(moment.second().into())?, two(moment.millisecond() / 10)?);
        let [_, f3] = two(moment.millisecond() % 10)?;
        Some([
            y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.', f1, f2, f3,
            b'Z',
        ])
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0 / 1000
    }
}

/// The value of a digit.
fn digit(byte: &u8) -> Option<i8> {
    byte.is_ascii_digit().then(|| i8::try_from(byte - b'0').ok())?
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text().ok_or(fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339, UTC, with milliseconds.",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text().as_ref().map(|text| std::str::from_utf8(text)) {
            Some(Ok(text)) => serializer.serialize_str(text),
            Some(Err(_)) | None => Err(serde::ser::Error::custom("the time can't be written")),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if let Some(time) = Self::parse(text.as_bytes()) {
            return Ok(time);
        }
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self::from_unix_ms(moment.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_with_milliseconds_and_read_back() {
        let noon = Timestamp::from_unix_ms(1_763_730_000_007);
        assert_eq!(noon.to_string(), "2025-11-21T13:00:00.007Z");
        assert_eq!(Timestamp::from_unix_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
        let json = serde_json::to_string(&noon).expect("a timestamp serializes");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("and parses"), noon);
        assert_eq!(Timestamp::from_unix_ms(i64::MAX).to_string(), "9999-12-30T21:59:59.999Z");
    }

    #[test]
    fn other_forms_are_read_too_and_none_that_is_no_time() {
        let read = |text: &str| serde_json::from_value::<Timestamp>(text.into()).ok().map(Timestamp::unix_ms);
        for same in ["2025-11-21T13:00:00.007Z", "2025-11-21t14:00:00.0070+01:00", "2025-11-21 13:00:00.007Z"] {
            assert_eq!(read(same), Some(1_763_730_000_007), "{same}");
        }
        for none in ["", "2025-02-29T13:00:00.007Z", "2025-11-21T24:00:00.007Z", "2025-11-2113:00:00.007ZZZ", "+025"] {
            assert_eq!((read(none), Timestamp::parse(none.as_bytes())), (None, None), "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn written_and_read_as_the_calendar_does(unix_ms in 0..253_402_207_199_999_i64) {
            let time = Timestamp::from_unix_ms(unix_ms);
            let moment = jiff::Timestamp::from_millisecond(unix_ms).expect("in range");
            proptest::prop_assert_eq!(time.to_string(), format!("{moment:.3}"));
            proptest::prop_assert_eq!(Timestamp::parse(time.to_string().as_bytes()), Some(time));
        }

        #[test]
        fn no_text_is_read_as_another_time(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}Z") {
            if let Some(time) = Timestamp::parse(text.as_bytes()) {
                let moment: jiff::Timestamp = text.parse().expect("a time");
                proptest::prop_assert_eq!(time, Timestamp::from_unix_ms(moment.as_millisecond()));
            }
        }
    }
}
