//! What stands on the disk: the files of a directory, their stats and their content. Blocking; `watch`
//! runs it off the async threads. The only part of this source that reads files.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use super::content::Content;
use super::parse::Format;
use crate::kinds::Rules;
use crate::model::ProblemKind;

/// What tells one content of a path from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    modified: Option<SystemTime>,
    size: u64,
    identity: Identity,
    /// Also moves when rights change, so that a file that becomes readable is read.
    changed: (i64, i64),
}

/// Which file or directory a path leads to: device and inode, where there are such.
pub(super) type Identity = (u64, u64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    (0, 0)
}

#[cfg(unix)]
fn changed(metadata: &Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> (i64, i64) {
    (0, 0)
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            size: metadata.len(),
            identity: identity(metadata),
            changed: changed(metadata),
        }
    }
}

/// The directory a path leads to.
pub(super) fn directory(dir: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "is not a directory"));
    }
    Ok(identity(&metadata))
}

/// The fleet files of a directory by name, with their stats; `None` for one that can't be looked at.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(String, Option<Stat>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if Format::of(&path).is_some() {
            files.push((name.to_owned(), fs::metadata(&path).ok().as_ref().map(Stat::of)));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// A path as it was found.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing is there.
    Gone,
    /// It holds this. Without a stat it is looked at again at every listing.
    Found {
        /// As it was before it was read: what changes while it is read is seen by the next look.
        stat: Option<Stat>,
        /// What it holds.
        content: Content,
        /// False when the file was refused unread.
        was_read: bool,
    },
}

/// Reads and parses one file, which problems call `name`.
pub(super) fn look(path: &Path, name: &str, format: Format, max_bytes: u64, rules: &Rules) -> Look {
    let unread = |stat, kind, why: String| Look::Found {
        stat,
        content: Content::unreadable(name, kind, why),
        was_read: false,
    };
    let failed = |error: &io::Error| {
        // A link that leads nowhere is still there: its servers are kept.
        if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() {
            return Look::Gone;
        }
        unread(None, ProblemKind::Unreadable, format!("can't be read: {error}; what it held is kept"))
    };
    let too_large = |stat, size: u64| {
        let why = format!("has {size} bytes; at most {max_bytes} are read. What it held is kept");
        unread(Some(stat), ProblemKind::TooLarge, why)
    };
    // Asked before it is opened: to open a pipe would wait for its writer.
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let why = "is not a file; what is not a file has no servers".to_owned();
            let mut content = Content::unreadable(name, ProblemKind::Unreadable, why);
            // Somebody took the file away on purpose: nobody half-writes a directory.
            content.is_whole = true;
            return Look::Found { stat: Some(Stat::of(&metadata)), content, was_read: false };
        }
        Ok(_) => {}
        Err(error) => return failed(&error),
    }
    let (file, metadata) =
        match File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok(opened) => opened,
            Err(error) => return failed(&error),
        };
    let stat = Stat::of(&metadata);
    if metadata.len() > max_bytes {
        return too_large(stat, metadata.len());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, should it grow while it is read.
    match file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes) {
        Err(error) => failed(&error),
        Ok(size) if size as u64 > max_bytes => too_large(stat, size as u64),
        Ok(_) => {
            let content = Content::read(name, format, &bytes, rules);
            Look::Found { stat: Some(stat), content, was_read: true }
        }
    }
}
