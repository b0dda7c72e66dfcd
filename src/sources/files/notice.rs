//! What an event of the operating system asks the watch to do: which file to look at, and how soon.

use std::path::Path;

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};

use super::parse::Format;

/// Where to look, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The file is complete, or gone.
    Now(String),
    /// The file is being written, perhaps.
    Soon(String),
    /// Anything may have changed.
    Everything,
    /// Somebody works here on a file of no fleet, perhaps on one that will be renamed.
    Stir,
    /// The directory itself went.
    Lost,
}

/// What the operating system's event asks us to do. Our own reading gives events, too: nothing.
pub(super) fn notices(dir: &Path, event: &notify::Event) -> Vec<Notice> {
    if event.need_rescan() {
        return vec![Notice::Everything];
    }
    let is_complete = match event.kind {
        // Both names of a rename come alone, too.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return Vec::new(),
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_) => true,
        // One that was created is empty for now, unless it is a link.
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => false,
        EventKind::Access(_) => return Vec::new(),
    };
    let is_swap = is_complete && !matches!(event.kind, EventKind::Access(_)) || event.kind.is_create();
    event
        .paths
        .iter()
        .filter_map(|path| {
            if path == dir {
                // Its rights changed, or it went.
                return Some(if is_complete { Notice::Lost } else { Notice::Everything });
            }
            let name = path.file_name()?.to_str()?;
            match Format::of(path) {
                Some(_) if is_complete => Some(Notice::Now(name.to_owned())),
                Some(_) => Some(Notice::Soon(name.to_owned())),
                // Kubernetes swaps `..data`, and every file behind it.
                None if is_swap && name.starts_with("..") => Some(Notice::Everything),
                None => Some(Notice::Stir),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    fn notice(kind: EventKind, path: &str) -> Vec<Notice> {
        notices(Path::new("/fleet"), &notify::Event::new(kind).add_path(path.into()))
    }

    #[test]
    fn a_closed_file_is_read_at_once_and_an_open_one_soon() {
        let file = "/fleet/a.yaml";
        let now = vec![Notice::Now("a.yaml".into())];
        let soon = vec![Notice::Soon("a.yaml".into())];
        assert_eq!(notice(EventKind::Access(AccessKind::Close(AccessMode::Write)), file), now);
        assert_eq!(notice(EventKind::Modify(ModifyKind::Name(RenameMode::To)), file), now);
        assert_eq!(notice(EventKind::Remove(RemoveKind::File), file), now);
        assert_eq!(notice(EventKind::Create(CreateKind::File), file), soon);
        assert_eq!(notice(EventKind::Modify(ModifyKind::Data(DataChange::Any)), file), soon);
        assert_eq!(notice(EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), file), soon);
        assert_eq!(notice(EventKind::Access(AccessKind::Open(AccessMode::Any)), file), []);
        assert_eq!(notice(EventKind::Access(AccessKind::Close(AccessMode::Read)), file), []);
    }

    #[test]
    fn a_hidden_swap_and_an_overflow_are_everything() {
        assert_eq!(
            notice(EventKind::Modify(ModifyKind::Name(RenameMode::To)), "/fleet/..data"),
            [Notice::Everything]
        );
        assert_eq!(
            notice(EventKind::Modify(ModifyKind::Name(RenameMode::To)), "/fleet/.a.yaml.swp"),
            [Notice::Stir]
        );
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(notices(Path::new("/fleet"), &overflow), [Notice::Everything]);
    }

    #[test]
    fn the_directory_may_go() {
        assert_eq!(notice(EventKind::Remove(RemoveKind::Folder), "/fleet"), [Notice::Lost]);
        assert_eq!(notice(EventKind::Modify(ModifyKind::Name(RenameMode::From)), "/fleet"), [Notice::Lost]);
        assert_eq!(
            notice(EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), "/fleet"),
            [Notice::Everything]
        );
    }
}
