//! The fleet directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use super::world::File;

/// A fleet directory that can be taken away. Files are written whole, wherever it is.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) home: PathBuf,
    draft: PathBuf,
    elsewhere: PathBuf,
    /// Whether it is away: nobody moves it while somebody writes.
    is_away: Mutex<bool>,
}

impl Directory {
    /// `home` is there, and what is beside it is ours: on the same file system.
    pub(super) fn new(home: &Path) -> anyhow::Result<Self> {
        let home = home.canonicalize().with_context(|| home.display().to_string())?;
        let (parent, name) = home.parent().zip(home.file_name()).context("the fleet directory can't be /")?;
        let beside = |what: &str| parent.join(format!(".{}.{what}", name.to_string_lossy()));
        let (draft, elsewhere) = (beside("draft"), beside("away"));
        Ok(Self { home, draft, elsewhere, is_away: Mutex::new(false) })
    }

    /// Writes or deletes a file.
    pub(super) fn write(&self, file: &File) -> anyhow::Result<()> {
        let is_away = self.is_away.lock().unwrap_or_else(PoisonError::into_inner);
        let path = if *is_away { &self.elsewhere } else { &self.home }.join(&file.name);
        let done = match &file.text {
            Some(text) => fs::write(&self.draft, text).and_then(|()| fs::rename(&self.draft, &path)),
            None => fs::remove_file(&path),
        };
        done.with_context(|| path.display().to_string())
    }

    /// Takes it away, or brings it back.
    pub(super) fn move_away(&self, away: bool) -> anyhow::Result<()> {
        let mut is_away = self.is_away.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = if away { (&self.home, &self.elsewhere) } else { (&self.elsewhere, &self.home) };
        fs::rename(from, to).with_context(|| from.display().to_string())?;
        *is_away = away;
        Ok(())
    }
}
