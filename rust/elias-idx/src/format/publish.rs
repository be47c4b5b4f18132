//! Putting a finished folder in its place at once: readers see the old one or the new one, whole.
//!
//! The new folder is written beside its target, forced to disk, and renamed; where a folder is to
//! be replaced, the two are exchanged by one system call and the old one is deleted.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(unix)]
use super::sha256_hex;
use crate::error::{ArgumentError, Error, Result};

/// Where a folder is to go.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    parent: PathBuf,
    exists: bool,
    overwrite: bool,
}

impl Target {
    /// Follows links, so that the folder that a link points to is replaced and not the link.
    pub(crate) fn resolve(path: &Path, overwrite: bool) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(_) if !overwrite => {
                let message = "already exists, and overwrite is not set";
                Err(Error::io(path, io::Error::new(io::ErrorKind::AlreadyExists, message)))
            }
            Ok(_) => Self::existing(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::new(path, overwrite),
            Err(error) => Err(Error::io(path, error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    fn existing(given: &Path) -> Result<Self> {
        let at_given = |error| Error::io(given, error);
        let path = fs::canonicalize(given).map_err(at_given)?;
        // Not `is_dir`, which says of what has disappeared meanwhile that it is no folder.
        if !fs::metadata(&path).map_err(at_given)?.is_dir() {
            let message = "is a file: only a folder can be overwritten";
            return Err(Error::io(given, io::Error::new(io::ErrorKind::NotADirectory, message)));
        }
        let Some(parent) = path.parent().map(Path::to_path_buf) else {
            let reason = "the root folder can't be overwritten";
            return Err(ArgumentError::BadPath { path, reason }.into());
        };
        Ok(Self { path, parent, exists: true, overwrite: true })
    }

    fn new(given: &Path, overwrite: bool) -> Result<Self> {
        let Some(name) = given.file_name() else {
            let reason = "the path must end in a folder's name";
            return Err(ArgumentError::BadPath { path: given.to_path_buf(), reason }.into());
        };
        let parent = match given.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::canonicalize(parent).map_err(|error| Error::io(parent, error))?;
        if !fs::metadata(&parent).map_err(|error| Error::io(&parent, error))?.is_dir() {
            return Err(Error::io(&parent, io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { path: parent.join(name), parent, exists: false, overwrite })
    }

    /// A hidden name beside the target that nobody else uses, with this ending.
    fn hidden_sibling(&self, ending: &str) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
        let unique = format!("{}-{count}-{nanos:08x}", std::process::id());
        self.parent.join(format!("{}{unique}{ending}", self.hidden_prefix()))
    }

    /// How the names of hidden siblings begin that this machine makes.
    fn hidden_prefix(&self) -> String {
        // Only the start of a long name is kept: file names are limited to 255 bytes.
        let name: String =
            self.path.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
        format!(".{name}.{}-", machine())
    }

    /// Removes the folders that killed processes of this machine have left beside the target. Of others' there is no telling: locks
    /// need not reach from one machine to the next.
    fn remove_leftovers(&self) {
        let prefix = self.hidden_prefix();
        for entry in fs::read_dir(&self.parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_staging = name.to_str().is_some_and(|name| {
                name.strip_prefix(&prefix)
                    .and_then(|rest| rest.strip_suffix(LOCKED_ENDING))
                    .is_some_and(is_unique_part)
            });
            // A named pipe would keep whoever opens it.
            if !is_staging || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            // Locked until it is gone, so that nobody takes it for theirs.
            if let Ok(_lock) = locked(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A folder, locked until it is dropped.
fn locked(path: &Path) -> std::result::Result<File, TryLockError> {
    let folder = File::open(path).map_err(TryLockError::Error)?;
    folder.try_lock()?;
    Ok(folder)
}

/// How the names of folders in the making end that are locked for as long as their process lives.
const LOCKED_ENDING: &str = ".staging";
/// And of those where there are no such locks, which are never taken for leftovers.
const UNLOCKED_ENDING: &str = ".tmp";

/// Whether it is what makes the name of a hidden sibling unique: a process, a count and a time.
fn is_unique_part(part: &str) -> bool {
    let mut numbers = part.split('-');
    let is_number = |number: Option<&str>| {
        number.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        })
    };
    (0..3).all(|_| is_number(numbers.next())) && numbers.next().is_none()
}

/// Tells this machine, or container, from others that share its files.
#[cfg(unix)]
fn machine() -> String {
    sha256_hex(&[rustix::system::uname().nodename().to_bytes()])[..8].to_owned()
}

/// Nothing is locked there, so nothing has to be told apart.
#[cfg(not(unix))]
fn machine() -> String {
    String::from("0")
}

/// A hidden folder beside its target, in the making. Unless it is published, nothing is left of it.
///
/// What a killed process has left of one is removed when the next one for the same target is made.
pub struct Staging {
    path: PathBuf,
    target: Target,
    /// The folder, locked, which says that somebody is at it; `None` where there are no such locks.
    _lock: Option<File>,
}

impl Staging {
    /// A new folder for what is to go to `target`.
    ///
    /// # Errors
    /// [`Error::Io`] when it can't be made, and of kind `AlreadyExists` when `target` exists and
    /// `overwrite` is not set; [`ArgumentError::BadPath`] for a path that can't be one.
    pub fn beside(target: &Path, overwrite: bool) -> Result<Self> {
        Self::new(Target::resolve(target, overwrite)?)
    }

    pub(crate) fn new(target: Target) -> Result<Self> {
        target.remove_leftovers();
        let at_parent = |error| Error::io(&target.parent, error);
        loop {
            let path = target.hidden_sibling(LOCKED_ENDING);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(at_parent)?,
            }
            match locked(&path) {
                // Before it was locked somebody may have taken it for a leftover.
                Ok(lock) if path.exists() => return Ok(Self { path, target, _lock: Some(lock) }),
                Ok(_) | Err(TryLockError::WouldBlock) => (),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::NotFound => (),
                Err(TryLockError::Error(_)) => {
                    let unlocked = target.hidden_sibling(UNLOCKED_ENDING);
                    fs::rename(&path, &unlocked).map_err(at_parent)?;
                    return Ok(Self { path: unlocked, target, _lock: None });
                }
            }
        }
    }

    /// The folder to write to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Forces all of the folder to disk and moves it to its place at once. A folder that is to be overwritten is
    /// exchanged with it and removed.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing is left of the folder, and what was at the target stays.
    pub fn sync_and_publish(self) -> Result<()> {
        sync_tree(&self.path).map_err(|error| Error::io(&self.target.path, error))?;
        swap_in(&self.path, &self.target)
    }

    /// Puts the folder in its place. Its files were forced to disk by whoever wrote them.
    pub(crate) fn publish(self) -> Result<()> {
        sync_folder(&self.path).map_err(|error| Error::io(&self.target.path, error))?;
        swap_in(&self.path, &self.target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Once published there is no folder of this name. Nothing can be done about a failure here,
        // and the error that led here is reported.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Puts the folder `source` at the target's path and makes that durable.
fn swap_in(source: &Path, target: &Target) -> Result<()> {
    let replaced = if target.overwrite {
        replace(source, target)
    } else {
        rename::to_new(source, &target.path).map(|()| false)
    };
    let at_target = |error| Error::io(&target.path, error);
    let replaced = replaced.map_err(at_target)?;
    sync_folder(&target.parent).map_err(at_target)?;
    if replaced {
        // The old folder has the new one's former name now. The save has succeeded even if the old
        // files can't be deleted.
        let _ = fs::remove_dir_all(source);
    }
    Ok(())
}

/// Exchanges the folders, or renames where there is none to replace; says which. Others may be about the same.
fn replace(source: &Path, target: &Target) -> io::Result<bool> {
    loop {
        let exchanged = match rename::exchange(source, &target.path) {
            Ok(true) => Ok(()),
            Ok(false) => exchange_by_steps(source, target),
            Err(error) => Err(error),
        };
        match exchanged {
            Err(error) if error.kind() == io::ErrorKind::NotFound && source.exists() => (),
            exchanged => return exchanged.map(|()| true),
        }
        match rename::to_new(source, &target.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            renamed => return renamed.map(|()| false),
        }
    }
}

/// For file systems that can't exchange: moves the old folder aside, and back if the new one
/// doesn't move in.
fn exchange_by_steps(source: &Path, target: &Target) -> io::Result<()> {
    // Not like a folder in the making: killed now, this process leaves the only index there.
    let aside = target.hidden_sibling(".old");
    fs::rename(&target.path, &aside)?;
    if let Err(error) = fs::rename(source, &target.path) {
        fs::rename(&aside, &target.path)?;
        return Err(error);
    }
    fs::rename(&aside, source)
}

/// Forces a folder's files, folders and entries to disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Forces a folder's entries to disk, where the system lets folders be opened and synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// The two atomic renames that the standard library lacks.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod rename {
    use std::io;
    use std::path::Path;

    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    /// Exchanges two folders; false where the file system can't.
    pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
        supported(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE))
    }

    /// Renames a folder unless the new name is taken.
    pub(super) fn to_new(from: &Path, to: &Path) -> io::Result<()> {
        if supported(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE))? {
            return Ok(());
        }
        super::rename_to_absent(from, to)
    }

    fn supported(result: rustix::io::Result<()>) -> io::Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Systems without such renames.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod rename {
    use std::io;
    use std::path::Path;

    pub(super) fn exchange(_one: &Path, _other: &Path) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn to_new(from: &Path, to: &Path) -> io::Result<()> {
        super::rename_to_absent(from, to)
    }
}

/// A rename after a look whether the name is free.
fn rename_to_absent(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(path: &Path, content: &str) {
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::write(path.join("inner/file"), content).unwrap();
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path.join("inner/file")).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn kind(result: Result<()>) -> io::ErrorKind {
        match result {
            Err(Error::Io { source, .. }) => source.kind(),
            other => panic!("{other:?}"),
        }
    }

    /// Writes a folder to `target`, as savers do.
    fn save(target: &Path, content: &str, overwrite: bool) -> Result<()> {
        let staging = Staging::beside(target, overwrite)?;
        folder_with(staging.path(), content);
        staging.sync_and_publish()
    }

    #[test]
    fn a_folder_moves_to_a_new_place() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        save(&target, "1", false).unwrap();
        assert_eq!(content(&target), "1");
        assert_eq!(names(root.path()), ["target"]);
    }

    #[test]
    fn a_folder_is_replaced_only_when_asked() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        folder_with(&target, "old");
        assert_eq!(kind(save(&target, "new", false)), io::ErrorKind::AlreadyExists);
        assert_eq!(content(&target), "old");
        save(&target, "new", true).unwrap();
        assert_eq!(content(&target), "new");
        assert_eq!(names(root.path()), ["target"]);
    }

    #[test]
    fn exchanging_by_steps_does_the_same() {
        let root = tempfile::tempdir().unwrap();
        let (new, old) = (root.path().join("new"), root.path().join("target"));
        folder_with(&new, "new");
        folder_with(&old, "old");
        let target = Target::resolve(&old, true).unwrap();
        exchange_by_steps(&new, &target).unwrap();
        assert_eq!((content(&old), content(&new)), ("new".into(), "old".into()));
        assert_eq!(names(root.path()), ["new", "target"]);
        fs::remove_dir_all(&new).unwrap();
        assert!(exchange_by_steps(&new, &target).is_err());
        assert_eq!(content(&old), "new", "the old folder is moved back");
    }

    #[test]
    fn a_rename_never_replaces() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        folder_with(&from, "1");
        fs::create_dir(&to).unwrap();
        for rename in [rename::to_new, rename_to_absent] {
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        folder_with(&real, "old");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        save(&link, "new", true).unwrap();
        assert_eq!(content(&real), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn an_abandoned_folder_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::resolve(&root.path().join("target"), false).unwrap();
        let staging = Staging::new(target).unwrap();
        fs::write(staging.path().join("half"), "1").unwrap();
        drop(staging);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    #[cfg(unix)]
    fn what_a_killed_process_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        let own = machine();
        for left in [format!(".target.{own}-123-0-0abcdef0"), format!(".target.{own}-9-17-1")] {
            folder_with(&root.path().join(left + LOCKED_ENDING), "half");
        }
        let mut others = [
            format!(".other.{own}-123-0-0abcdef0.staging"),
            format!(".target.{own}-1-2.staging"),
            format!(".target.{own}-123-0-0abcdef0.old"),
            format!(".target.{own}-123-0-0abcdef0.tmp"),
            format!(".target.{own}-mine.staging"),
            String::from(".target.another-123-0-0abcdef0.staging"),
        ];
        others.sort();
        for other in &others {
            folder_with(&root.path().join(other), "kept");
        }
        let first = Staging::beside(&target, false).unwrap();
        fs::write(first.path().join("half"), "1").unwrap();
        let second = Staging::beside(&target, false).unwrap();
        assert!(first.path().join("half").exists(), "somebody is at it still");
        drop((first, second));
        assert_eq!(names(root.path()), others);
    }

    #[test]
    #[cfg(unix)]
    fn only_folders_are_taken_for_leftovers() {
        let root = tempfile::tempdir().unwrap();
        let pipe = format!(".target.{}-1-2-3{LOCKED_ENDING}", machine());
        let made =
            std::process::Command::new("mkfifo").arg(root.path().join(&pipe)).status().unwrap();
        assert!(made.success());
        drop(Staging::beside(&root.path().join("target"), false).unwrap());
        assert_eq!(names(root.path()), [pipe]);
    }

    #[test]
    fn savers_at_once_leave_each_other_alone() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        std::thread::scope(|scope| {
            for saver in 0..4 {
                let target = &target;
                scope.spawn(move || {
                    for _ in 0..100 {
                        save(target, &saver.to_string(), true).unwrap();
                    }
                });
            }
        });
        assert!(["0", "1", "2", "3"].contains(&content(&target).as_str()));
        assert_eq!(names(root.path()), ["target"]);
    }

    #[test]
    fn a_target_may_come_and_go_amid_a_save() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        let first = Staging::beside(&target, true).unwrap();
        folder_with(first.path(), "first");
        save(&target, "second", false).unwrap();
        first.sync_and_publish().unwrap();
        assert_eq!(content(&target), "first");
        let third = Staging::beside(&target, true).unwrap();
        folder_with(third.path(), "third");
        fs::remove_dir_all(&target).unwrap();
        third.sync_and_publish().unwrap();
        assert_eq!(content(&target), "third");
        assert_eq!(names(root.path()), ["target"]);
    }

    #[test]
    fn unusable_targets_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let resolve = |name: &str| Target::resolve(&root.path().join(name), true).map(drop);
        fs::write(root.path().join("file"), "1").unwrap();
        assert_eq!(kind(resolve("file")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(resolve("file/inside")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(resolve("missing/inside")), io::ErrorKind::NotFound);
        assert!(matches!(
            resolve("missing/.."),
            Err(Error::Argument(ArgumentError::BadPath { .. }))
        ));
        assert!(matches!(
            Target::resolve(Path::new("/"), true),
            Err(Error::Argument(ArgumentError::BadPath { .. }))
        ));
    }
}
