//! Gives the binary the commit that it was built from, as `PARLEY_COMMIT`, read from `.git` without running git.
//!
//! Only release builds carry it: in a debug build it would force a new compilation after each commit.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let commit = if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") { commit() } else { None };
    println!("cargo:rustc-env=PARLEY_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit at `HEAD`; `None` where there is no repository, as in an archive of the sources or in an image's build.
fn commit() -> Option<String> {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let root = package.parent()?;
    let git = git_folder(&root.join(".git"))?;
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    // A worktree has a HEAD of its own, and its branches in the folder of the repository.
    let shared = read(&git.join("commondir")).map_or_else(|| git.clone(), |path| git.join(path));
    read(&shared.join(name)).or_else(|| packed(&shared, name))
}

/// In a worktree `.git` is a file that names the folder.
fn git_folder(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let text = std::fs::read_to_string(path).ok()?;
    Some(path.parent()?.join(text.trim().strip_prefix("gitdir: ")?))
}

/// A branch without a file of its own.
fn packed(shared: &Path, name: &str) -> Option<String> {
    let text = read(&shared.join("packed-refs"))?;
    let line = text.lines().find(|line| line.split_once(' ').is_some_and(|(_, found)| found == name))?;
    line.split_once(' ').map(|(commit, _)| commit.to_owned())
}

/// Reads a file that is there, and has cargo run this again when it changes.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}
