//! Whose word a program of root's is: as cron and sudo have it, nobody but root may be able to
//! change it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Failure;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
const EXECUTABLE: u32 = 0o111;
const NOT_ROOTS: &str = "is not owned by root";

/// Links on the way to a file; the kernel follows no more.
const LINKS_MOST: usize = 40;

/// The file that root may run: no link, and nobody but root can put another one in its place.
///
/// # Errors
/// When it does not exist, is no program, or others than root may write it, a link to it, or one of
/// their directories.
pub(super) fn check(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let unseen = |e: std::io::Error| {
        Failure::new(
            format!("the hook {shown} cannot be run: {e}"),
            "correct `on_change` or put the program there, then reload",
        )
    };
    let (real, way) = way(path).map_err(unseen)?;
    let file = real.metadata().map_err(unseen)?;
    if !file.is_file() || file.mode() & EXECUTABLE == 0 {
        return Err(Failure::new(
            format!("the hook {shown} is not executable, so it is not run"),
            format!("chmod 0755 {shown}"),
        ));
    }
    for part in way {
        judge(&part)
            .map_err(unseen)?
            .map_err(|why| refused(path, &part, why))?;
    }
    Ok(real)
}

/// The file, and all that decides which one it is: the file itself, each link, and the directories they
/// stand in, since who may write a directory may put something else into it.
fn way(path: &Path) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let (mut at, mut parts) = (path.to_path_buf(), Vec::new());
    for _ in 0..LINKS_MOST {
        let directory = at.parent().unwrap_or(Path::new("/")).to_path_buf();
        parts.extend(directory.ancestors().map(Path::to_path_buf));
        parts.extend(directory.canonicalize()?.ancestors().map(Path::to_path_buf));
        parts.push(at.clone());
        if !fs::symlink_metadata(&at)?.is_symlink() {
            return Ok((at.canonicalize()?, parts));
        }
        at = directory.join(fs::read_link(&at)?);
    }
    Err(io::Error::other("too many links"))
}

fn refused(hook: &Path, part: &Path, why: &str) -> Failure {
    let (hook, part) = (hook.display(), part.display());
    Failure::new(
        format!("the hook {hook} is not run: {part} {why}, so others could have root run theirs"),
        format!("chown root {part}; chmod go-w {part}"),
    )
}

/// A link is its owner's, whatever it leads to, and has no mode of its own.
fn judge(part: &Path) -> io::Result<Result<(), &'static str>> {
    if fs::symlink_metadata(part)?.uid() != 0 {
        return Ok(Err(NOT_ROOTS));
    }
    let of = fs::metadata(part)?;
    Ok(sound(of.uid(), of.mode(), of.is_dir()))
}

/// In a sticky directory, such as /tmp, only its owner replaces a file.
fn sound(owner: u32, mode: u32, is_dir: bool) -> Result<(), &'static str> {
    if owner != 0 {
        return Err(NOT_ROOTS);
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

    /// Whoever may change the link chooses the program, even if all programs are root's.
    #[test]
    fn a_link_is_judged_as_well_as_what_it_leads_to() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let program = Path::new("/bin/sh").canonicalize().unwrap();
        assert_eq!(check(Path::new("/bin/sh")).unwrap(), program);
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        symlink("/bin/sh", open.join("hook")).unwrap();
        symlink(&open, dir.path().join("also")).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        for path in [open.join("hook"), dir.path().join("also/hook")] {
            let refused = check(&path).unwrap_err();
            assert!(refused.text.contains("is not run"), "{refused:?}");
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert_eq!(check(&open.join("hook")).unwrap(), program);
        }
        let circle = dir.path().join("circle");
        symlink(&circle, &circle).unwrap();
        assert!(check(&circle).is_err());
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
