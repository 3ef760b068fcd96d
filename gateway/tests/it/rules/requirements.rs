//! The tables of `gateway/seeds`: each requirement of a seed document names the tests that show it, as `file::test`.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The sources that a table can mean: those whose path ends in this, with or without `.rs`.
fn files(name: &str) -> Vec<PathBuf> {
    let end = format!("/{}.rs", name.trim_end_matches(".rs"));
    let mut found = Vec::new();
    for folder in ["gateway/src", "gateway/tests", "shared/src", "loadtest/src", "loadtest/tests"] {
        sources(&root().join(folder), &mut found);
    }
    found.retain(|path| path.to_string_lossy().ends_with(&end));
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What stands in backquotes and looks like `file::test`.
fn named(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = line.split('`').skip(1).step_by(2).filter_map(|text| text.rsplit_once("::"));
    quoted.filter(|(path, name)| is_word(name) && path.trim_end_matches(".rs").split('/').all(is_word))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether the source has a function of this name that is a test, or a case of the stores' contract.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declared = [format!("fn {name}("), format!("async fn {name}(")];
    let is_declaration =
        |line: &&str| declared.iter().any(|start| line.trim_start_matches("pub(crate) ").starts_with(start));
    let Some(place) = lines.iter().position(is_declaration) else { return false };
    let attributes = lines[..place].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
    let is_test = attributes.into_iter().any(|line| line.contains("test]") || line.contains("test("));
    let mut in_contract = source.split("contract!(").skip(1).filter_map(|rest| rest.split(");").next());
    is_test || in_contract.any(|cases| cases.split(',').any(|case| case.trim() == name))
}

#[test]
fn every_test_that_a_table_names_exists() {
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("gateway/seeds")).expect("the tables") {
        let path = entry.expect("an entry").path();
        let table = std::fs::read_to_string(&path).expect("a table");
        let title = path.file_name().expect("a name").to_string_lossy().into_owned();
        for (number, line) in table.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
            let tests: Vec<_> = named(line).collect();
            let is_row = !line.starts_with("|-") && !line.starts_with("| -") && number > 0 && !is_head(&table, number);
            if is_row && tests.is_empty() {
                faults.push(format!("{title}:{}: a requirement without a test", number + 1));
            }
            for (place, name) in tests {
                count += 1;
                let mut meant = files(place).into_iter().map(|path| std::fs::read_to_string(path).expect("a source"));
                if !meant.any(|source| has_test(&source, name)) {
                    faults.push(format!("{title}:{}: there is no test {place}::{name}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count >= 20, "the tables name {count} tests");
}

/// Whether the line is the head of its table: the next one is the rule below it.
fn is_head(table: &str, number: usize) -> bool {
    table.lines().nth(number + 1).is_some_and(|next| next.starts_with("|-") || next.starts_with("| -"))
}

#[test]
fn a_missing_test_is_noticed() {
    assert_eq!(
        named("| x | `a/b.rs::c`, `d::e` and `not::a(test)` |").collect::<Vec<_>>(),
        [("a/b.rs", "c"), ("d", "e")]
    );
    let source = "#[tokio::test]\n/// Says.\nasync fn real() {}\nfn helper() {}\ncontract!(\n    one,\n    two,\n);\nasync fn two(w: W) {}";
    assert!(has_test(source, "real") && has_test(source, "two"));
    assert!(!has_test(source, "helper") && !has_test(source, "rea") && !has_test(source, "none"));
    assert_eq!(
        (files("requirements").len(), files("shared/src/dialect/flat.rs").len(), files("none").len()),
        (1, 1, 0)
    );
}
