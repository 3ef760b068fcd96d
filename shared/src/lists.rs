//! Lists beside enums, each made from a `match` that the compiler checks: a new variant can't be left out of its list.

/// `NAMES` and `name()` of an enum whose variants have fields, from one list of patterns and names.
macro_rules! names {
    ($type:ident { $($pattern:pat => $name:literal),+ $(,)? }) => {
        impl $type {
            /// The canonical `type` of each.
            pub const NAMES: [&'static str; [$($name),+].len()] = [$($name),+];

            /// The canonical `type`, which is also the label in metrics.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $($pattern => $name),+ }
            }
        }
    };
}

/// `ALL` and the word of each variant of an enum without fields, from one list.
macro_rules! words_of {
    ($type:ident, $(#[$doc:meta])* $word_of:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Each of them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            $(#[$doc])*
            #[must_use]
            pub fn $word_of(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

pub(crate) use {names, words_of};
