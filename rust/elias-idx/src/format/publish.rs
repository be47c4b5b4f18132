//! Putting a finished folder in its place at once: readers see the old one or the new one, whole.
//!
//! The new folder is written beside its target, forced to disk, and renamed; where a folder is to
//! be replaced, the two are exchanged by one system call and the old one is deleted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ArgumentError, Error, Result};

/// Moves the finished folder `source` to `target`, on the same file system.
///
/// All of `source` is forced to disk first. With `overwrite`, a folder at `target` is replaced and
/// deleted; without, anything there is an error. On an error `source` stays where it was.
///
/// # Errors
/// [`Error::Io`], of kind `AlreadyExists` when `target` exists and `overwrite` is not set;
/// [`ArgumentError::BadPath`] when one folder lies in the other.
pub fn replace_folder(source: &Path, target: &Path, overwrite: bool) -> Result<()> {
    let resolved = Target::resolve(target, overwrite)?;
    let source = fs::canonicalize(source).map_err(|error| Error::io(source, error))?;
    if !source.is_dir() {
        return Err(Error::io(&source, io::ErrorKind::NotADirectory.into()));
    }
    if source.starts_with(&resolved.path) || resolved.path.starts_with(&source) {
        let reason = "the new folder must lie beside the one that it replaces";
        return Err(ArgumentError::BadPath { path: target.to_path_buf(), reason }.into());
    }
    sync_tree(&source).map_err(|error| Error::io(&source, error))?;
    swap_in(&source, &resolved)
}

/// Where a folder is to go.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    parent: PathBuf,
    exists: bool,
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::new(path),
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
        let path = fs::canonicalize(given).map_err(|error| Error::io(given, error))?;
        if !path.is_dir() {
            let message = "is a file: only a folder can be overwritten";
            return Err(Error::io(given, io::Error::new(io::ErrorKind::NotADirectory, message)));
        }
        let Some(parent) = path.parent().map(Path::to_path_buf) else {
            let reason = "the root folder can't be overwritten";
            return Err(ArgumentError::BadPath { path, reason }.into());
        };
        Ok(Self { path, parent, exists: true })
    }

    fn new(given: &Path) -> Result<Self> {
        let Some(name) = given.file_name() else {
            let reason = "the path must end in a folder's name";
            return Err(ArgumentError::BadPath { path: given.to_path_buf(), reason }.into());
        };
        let parent = match given.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::canonicalize(parent).map_err(|error| Error::io(parent, error))?;
        if !parent.is_dir() {
            return Err(Error::io(&parent, io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { path: parent.join(name), parent, exists: false })
    }

    /// A free hidden name beside the target, with this ending.
    fn hidden_sibling(&self, ending: &str) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
        let unique = format!("{}-{count}-{nanos:08x}", std::process::id());
        self.parent.join(format!("{}{unique}{ending}", self.hidden_prefix()))
    }

    /// How the names of hidden siblings begin.
    fn hidden_prefix(&self) -> String {
        // Only the start of a long name is kept: file names are limited to 255 bytes.
        let name: String =
            self.path.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
        format!(".{name}.")
    }

    /// Removes the folders that killed processes have left beside the target.
    fn remove_leftovers(&self) {
        let prefix = self.hidden_prefix();
        for entry in fs::read_dir(&self.parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_staging = name.to_str().is_some_and(|name| {
                name.strip_prefix(&prefix)
                    .and_then(|rest| rest.strip_suffix(STAGING_ENDING))
                    .is_some_and(is_unique_part)
            });
            // A folder in the making is locked, for as long as its process lives.
            if is_staging && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok())
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// How the names of folders in the making end.
const STAGING_ENDING: &str = ".tmp";

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
        loop {
            let path = target.hidden_sibling(STAGING_ENDING);
            fs::create_dir(&path).map_err(|error| Error::io(&target.parent, error))?;
            let lock = File::open(&path).ok().filter(|folder| folder.try_lock().is_ok());
            // Before it was locked somebody may have taken it for a leftover.
            if path.exists() {
                return Ok(Self { path, target, _lock: lock });
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
    let at_target = |error| Error::io(&target.path, error);
    if target.exists {
        if !rename::exchange(source, &target.path).map_err(at_target)? {
            exchange_by_steps(source, target).map_err(at_target)?;
        }
        sync_folder(&target.parent).map_err(at_target)?;
        // The old folder has the new one's former name now. The save has succeeded even if the old
        // files can't be deleted.
        let _ = fs::remove_dir_all(source);
        return Ok(());
    }
    rename::to_new(source, &target.path).map_err(at_target)?;
    sync_folder(&target.parent).map_err(at_target)
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

    #[test]
    fn a_folder_moves_to_a_new_place() {
        let root = tempfile::tempdir().unwrap();
        let (new, target) = (root.path().join("new"), root.path().join("target"));
        folder_with(&new, "1");
        replace_folder(&new, &target, false).unwrap();
        assert_eq!(content(&target), "1");
        assert_eq!(names(root.path()), ["target"]);
    }

    #[test]
    fn a_folder_is_replaced_only_when_asked() {
        let root = tempfile::tempdir().unwrap();
        let (new, target) = (root.path().join("new"), root.path().join("target"));
        folder_with(&new, "new");
        folder_with(&target, "old");
        assert_eq!(kind(replace_folder(&new, &target, false)), io::ErrorKind::AlreadyExists);
        assert_eq!((content(&new), content(&target)), ("new".into(), "old".into()));
        replace_folder(&new, &target, true).unwrap();
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
        let (new, real, link) =
            (root.path().join("new"), root.path().join("real"), root.path().join("link"));
        folder_with(&new, "new");
        folder_with(&real, "old");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace_folder(&new, &link, true).unwrap();
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
        for left in [".target.123-0-0abcdef0.tmp", ".target.9-17-00000001.tmp"] {
            folder_with(&root.path().join(left), "half");
        }
        let others = [
            ".other.123-0-0abcdef0.tmp",
            ".target.1-2.tmp",
            ".target.123-0-0abcdef0.old",
            ".target.mine.tmp",
        ];
        for other in others {
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

    #[test]
    fn a_folder_does_not_replace_itself_or_its_parent() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        folder_with(&folder, "1");
        for (source, target) in [
            (folder.clone(), folder.clone()),
            (folder.join("inner"), folder.clone()),
            (folder.clone(), folder.join("inner")),
            (folder.clone(), folder.join("new")),
        ] {
            assert!(replace_folder(&source, &target, true).is_err());
            assert_eq!(content(&folder), "1");
        }
    }
}
