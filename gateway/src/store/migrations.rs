//! Which migrations a database lacks: the rule that both stores share. No SQL.

/// One step of a store's schema: a numbered file.
pub(super) struct Migration {
    /// Its number. Numbers ascend, and may leave gaps.
    pub(super) version: i32,
    /// Its statements.
    pub(super) sql: &'static str,
}

/// The first released schema. Databases with lower versions were made before the first release, when versions were
/// still several small files. Their tables can't be carried over.
const FIRST_RELEASED: i32 = 100;

/// The migrations of `all` that a database lacks which has `applied`, in order. One with a number between those that
/// were applied is not left out. The error says why a database can't be used.
pub(super) fn missing<'a>(all: &'a [Migration], applied: &[i32]) -> Result<Vec<&'a Migration>, String> {
    if applied.iter().any(|version| *version < FIRST_RELEASED) {
        return Err("this database was made by an unreleased version of Parley; begin with an empty one".to_owned());
    }
    if let Some(unknown) = applied.iter().rfind(|version| all.iter().all(|known| known.version != **version)) {
        return Err(format!(
            "its tables have version {unknown}, which this gateway doesn't know: run a newer gateway, or another database"
        ));
    }
    Ok(all.iter().filter(|migration| !applied.contains(&migration.version)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Migration] = &[
        Migration { version: 100, sql: "" },
        Migration { version: 103, sql: "" },
        Migration { version: 110, sql: "" },
    ];

    fn versions(applied: &[i32]) -> Result<Vec<i32>, String> {
        Ok(missing(ALL, applied)?.iter().map(|migration| migration.version).collect())
    }

    #[test]
    fn what_is_missing_is_applied_in_order_also_between_others() {
        assert_eq!(versions(&[]), Ok(vec![100, 103, 110]));
        assert_eq!(versions(&[100]), Ok(vec![103, 110]));
        assert_eq!(versions(&[100, 110]), Ok(vec![103]));
        assert_eq!(versions(&[100, 103, 110]), Ok(vec![]));
    }

    #[test]
    fn older_and_newer_databases_are_refused() {
        for applied in [&[1][..], &[1, 2, 24], &[24, 100]] {
            let reason = versions(applied).expect_err("made before the first release");
            assert!(reason.contains("unreleased version"), "{reason}");
        }
        let reason = versions(&[100, 111]).expect_err("made by a newer gateway");
        assert!(reason.contains("version 111") && reason.contains("newer gateway"), "{reason}");
    }
}
