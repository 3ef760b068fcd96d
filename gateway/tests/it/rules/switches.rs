//! Every switch of the sources is in the list of `loadtest/necessity.sh`, with its test, and in NOLOSS.md.

use std::collections::BTreeSet;
use std::path::Path;

/// Every file of these sources, as one text.
fn text_of(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&text_of(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
    text
}

#[test]
fn every_switch_has_a_test_that_fails_without_its_mechanism() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = text_of(&root.join("src"));
    let switches: BTreeSet<&str> =
        sources.split("switches::off(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let script = std::fs::read_to_string(root.join("../loadtest/necessity.sh")).expect("the script");
    let list = script.split("PAIRS'\n").nth(1).and_then(|rest| rest.split("\nPAIRS").next()).expect("its list");
    let pairs: Vec<(&str, &str)> = list.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(switches, pairs.iter().map(|(switch, _)| *switch).collect(), "the sources and the list differ");
    let (tests, page) = (text_of(&root.join("tests/it")), include_str!("../../../NOLOSS.md"));
    for (switch, test) in pairs {
        let name = test.trim().rsplit("::").next().expect("a name");
        assert!(tests.contains(&format!("async fn {name}(")) || tests.contains(&format!("fn {name}(")), "no {name}");
        assert!(page.contains(&format!("`{switch}`")), "NOLOSS.md doesn't name the switch {switch}");
    }
}
