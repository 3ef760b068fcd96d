//! Pages keep to "Plain English" of CONTRIBUTING.md: at most 25 words a sentence, no "What …" or "Who …" as subject.

use std::path::{Path, PathBuf};

const WORDS_MAX: usize = 25;
/// A sentence that begins with one of these has to be a question.
const QUESTIONS: [&str; 4] = ["What", "Who", "Whoever", "Whatever"];
/// Folders without pages of ours; those in `seeds` quote documents of others.
const OTHERS: [&str; 3] = ["target", "node_modules", "seeds"];
/// Pages that are still to be mended.
const NOT_YET: [&str; 1] = ["gateway/WEBHOOKS.md"];

/// Every page below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !OTHERS.contains(&name.as_str()) {
            found.extend(pages(&path));
        } else if path.is_file() && name.ends_with(".md") && !NOT_YET.iter().any(|page| path.ends_with(page)) {
            found.push(path);
        }
    }
    found
}

/// A page's paragraphs, headings, items and cells, each with its first line; without the column of sentences to avoid.
fn paragraphs(page: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut is_code, mut is_open, mut has_examples) = (false, false, false);
    for (number, line) in (1..).zip(page.lines().map(str::trim)) {
        is_code ^= line.starts_with("```");
        has_examples &= line.starts_with('|');
        if is_code || line.is_empty() || ["```", "|-", "<"].iter().any(|start| line.starts_with(*start)) {
            is_open = false;
        } else if line.starts_with('|') {
            let row = line.replace(r"\|", "/");
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            has_examples |= cells[0] == "instead of";
            found.extend(cells.iter().skip(usize::from(has_examples)).map(|cell| (number, (*cell).to_owned())));
            is_open = false;
        } else {
            let (mark, rest) = line.split_once(' ').filter(|(word, _)| is_mark(word)).unwrap_or(("", line));
            match found.last_mut().filter(|_| is_open && mark.is_empty()) {
                Some((_, text)) => text.extend([" ", rest]),
                None => found.push((number, rest.to_owned())),
            }
            is_open = !mark.starts_with('#');
        }
    }
    found
}

/// Whether a line's first word begins a heading, an item of a list or a quotation.
fn is_mark(word: &str) -> bool {
    let number = word.strip_suffix('.').map(str::parse::<u32>);
    ["-", "*", ">"].contains(&word) || word.trim_matches('#').is_empty() || matches!(number, Some(Ok(_)))
}

/// The text as it is read: code in backquotes is one word, and a link is its name.
fn plain(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(place, part)| if place % 2 == 1 { "CODE" } else { part });
    let mut plain = parts.collect::<String>().replace('*', "");
    while let Some(start) = plain.find("](") {
        let end = plain[start..].find(')').map_or(plain.len(), |length| start + length + 1);
        plain.replace_range(start..end, "");
    }
    plain
}

/// Where a page breaks the rules: line and sentence. Lists that are joined by `·` are no sentences.
fn faults(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let ends = |word: &str, marks: &[char]| word.trim_end_matches(['"', '”', ')']).ends_with(marks);
    for (line, paragraph) in paragraphs(page) {
        let text = plain(&paragraph);
        let words: Vec<&str> = text.split_whitespace().collect();
        let sentences = words.split_inclusive(|word| ends(word, &['.', '!', '?']));
        for sentence in sentences.filter(|words| !words.contains(&"·")) {
            let count = sentence.iter().filter(|word| word.contains(char::is_alphanumeric)).count();
            let is_subject = sentence[0].split(|c: char| !c.is_alphanumeric()).any(|part| QUESTIONS.contains(&part));
            if count > WORDS_MAX || is_subject && !ends(sentence[sentence.len() - 1], &['?']) {
                faults.push(format!("{line}: {}", sentence.join(" ")));
            }
        }
    }
    faults
}

#[test]
fn every_page_is_plain_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let (pages, mut broken) = (pages(root), Vec::new());
    for path in &pages {
        let page = std::fs::read_to_string(path).expect("a page");
        let name = path.strip_prefix(root).expect("below the root").display();
        broken.extend(faults(&page).into_iter().map(|fault| format!("{name}:{fault}")));
    }
    assert!(broken.is_empty(), "over {WORDS_MAX} words, or What and Who as a subject: {broken:#?}");
    assert!(pages.len() >= 20, "there are {} pages", pages.len());
}

#[test]
fn long_sentences_and_clauses_as_subjects_are_found() {
    let long = |words: usize| vec!["word"; words].join(" ");
    for (page, found) in [
        (format!("# A heading\n{}\n{}.\nShort.", long(20), long(5)), 0),
        (format!("Short.\n\n- Then\n  {}\n  {}. Short.", long(20), long(5)), 1),
        (format!("| cell | {} |\n|---|---|\n| a \\| b | {} |", long(26), long(25)), 1),
        (format!("One `{}` [two](three four) {} –.", long(9), long(22)), 0),
        (format!("```sh\n{}\n```\n{} · {}.", long(30), long(20), long(20)), 0),
        ("Whoever is in stays.\n\n## What it costs\n\n**What isn't known** waits.".to_owned(), 3),
        ("## What does it cost?\n\nHe asked what it costs. (Who knows?) Whole.\n\nWhat's up is up.".to_owned(), 1),
        ("| instead of | write |\n|---|---|\n| Who comes is in. | Who comes is in. |\n".to_owned(), 1),
    ] {
        assert_eq!(faults(&page).len(), found, "{page}\n{:#?}", faults(&page));
    }
    assert_eq!(faults("One.\n\nTwo.\nWhat is three is four."), ["3: What is three is four."]);
}
