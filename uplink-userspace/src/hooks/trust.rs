//! Whose word a program of root's is: as cron and sudo have it, nobody but root may be able to
//! change it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Failure;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
const EXECUTABLE: u32 = 0o111;

/// Whether root may run it.
///
/// # Errors
/// When it does not exist, is no program, or others than root may write it or its directories.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let unseen = |e: std::io::Error| {
        Failure::new(
            format!("the hook {shown} cannot be run: {e}"),
            "correct `on_change` or put the program there, then reload",
        )
    };
    let real = path.canonicalize().map_err(unseen)?;
    let file = real.metadata().map_err(unseen)?;
    if !file.is_file() || file.mode() & EXECUTABLE == 0 {
        return Err(Failure::new(
            format!("the hook {shown} is not executable, so it is not run"),
            format!("chmod 0755 {shown}"),
        ));
    }
    // Who may write a directory may put another program into it.
    for part in real.ancestors() {
        judge(&fs::metadata(part).map_err(unseen)?).map_err(|why| refused(path, part, why))?;
    }
    Ok(())
}

fn refused(hook: &Path, part: &Path, why: &str) -> Failure {
    let (hook, part) = (hook.display(), part.display());
    Failure::new(
        format!("the hook {hook} is not run: {part} {why}, so others could have root run theirs"),
        format!("chown root {part}; chmod go-w {part}"),
    )
}

fn judge(of: &Metadata) -> Result<(), &'static str> {
    sound(of.uid(), of.mode(), of.is_dir())
}

/// In a sticky directory, such as /tmp, only its owner replaces a file.
fn sound(owner: u32, mode: u32, is_dir: bool) -> Result<(), &'static str> {
    if owner != 0 {
        return Err("is not owned by root");
    }
    if mode & WRITABLE_BY_OTHERS != 0 && !(is_dir && mode & STICKY != 0) {
        return Err("is writable by others than its owner");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_may_be_able_to_change_it() {
        assert_eq!(sound(0, 0o100_755, false), Ok(()));
        assert_eq!(sound(0, 0o041_777, true), Ok(()));
        for (owner, mode, is_dir) in [
            (1000, 0o100_755, false),
            (0, 0o100_775, false),
            (0, 0o100_757, false),
            (0, 0o101_757, false),
            (0, 0o040_777, true),
            (1000, 0o041_777, true),
        ] {
            assert!(sound(owner, mode, is_dir).is_err(), "{owner} {mode:o}");
        }
    }

    #[test]
    fn what_is_not_there_or_no_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = check(&dir.path().join("hook")).unwrap_err();
        assert!(missing.text.contains("No such file"), "{missing:?}");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        for path in [plain.as_path(), dir.path()] {
            assert!(check(path).unwrap_err().text.contains("is not executable"));
        }
    }
}
