//! Opens direct conversations before a measurement, so that the measurement finds them open.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use shared::UserId;

use crate::client::{OutgoingMessage, Recipient};
use crate::report::Progress;
use crate::speech::Speech;
use crate::ws::Writer;

/// How long opening may take after the last message.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends one message, that bears no number, over each of these connections to this user, `rate` a second, and waits until
/// `opened` has counted them; with the count it gives the errors so far.
///
/// # Errors
/// A connection that broke, or conversations that aren't open after half a minute.
pub(super) async fn open_directs<'a>(
    speech: Speech,
    pairs: impl ExactSizeIterator<Item = (&'a Writer, &'a UserId)>,
    rate: f64,
    progress: &Progress,
    opened: impl Fn() -> (u64, BTreeMap<String, u64>),
) -> Result<()> {
    let all = pairs.len() as u64;
    let run: u32 = rand::random();
    for (number, (writer, to)) in pairs.enumerate() {
        let to = Recipient::User(to.clone());
        let send = OutgoingMessage { temp_id: format!("open-{run:x}-{number}"), to, content: "hello".into() };
        let (opcode, payload) = speech.send(None, send);
        writer.send(opcode, &payload)?;
        tokio::time::sleep(Duration::from_secs_f64(1.0 / rate.clamp(1.0, 2000.0))).await;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (count, errors) = opened();
        progress.show(&format!("{count} of {all} conversations open"));
        if count >= all {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{count} of {all} conversations are open after {} s; errors: {errors:?}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
