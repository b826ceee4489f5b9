//! Records the content of files, to detect whether they have changed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

/// Larger files are not read. They count as changed if their size, inode or times change.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The content of several files at one moment. Equal if every file had the same content.
/// Symbolic links are followed, so replacing a link counts if it leads to different content.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints(BTreeMap<PathBuf, Fingerprint>);

#[derive(Clone, Debug)]
struct Fingerprint {
    content: Content,
    status: Option<Status>,
    /// Whether the status was already the same at the previous check, so that any later write
    /// changes it.
    settled: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Content {
    /// Missing or not readable.
    Absent,
    /// Not a regular file (a pipe or device). Never counts as changed.
    NotRegular,
    /// Too large to read.
    Large(Status),
    Digest([u8; 32]),
}

/// Omits the digest, because that of a secret would reveal something about it.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::NotRegular => "NotRegular",
            Self::Large(_) => "Large",
            Self::Digest(_) => "Digest",
        })
    }
}

/// A file's metadata, available without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Status {
    fn from(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl PartialEq for Fingerprints {
    fn eq(&self, other: &Self) -> bool {
        let same = |((path, fingerprint), (other_path, other)): (
            (&PathBuf, &Fingerprint),
            (&PathBuf, &Fingerprint),
        )| { path == other_path && fingerprint.content == other.content };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

impl Fingerprints {
    /// Takes the fingerprints of these files. Blocks.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let fingerprint = |path: &Path| (path.to_owned(), Fingerprint::of(path, None));
        Self(paths.into_iter().map(fingerprint).collect())
    }

    /// Takes the fingerprints of the same files again, without reading those whose status has not
    /// changed. Blocks.
    #[must_use]
    pub fn again(&self) -> Self {
        let fingerprints = self.0.iter();
        let again =
            fingerprints.map(|(path, before)| (path.clone(), Fingerprint::of(path, Some(before))));
        Self(again.collect())
    }

    /// These fingerprints, extended by those in `others` for other files.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        for (path, fingerprint) in others.0 {
            self.0.entry(path).or_insert(fingerprint);
        }
        self
    }

    /// The fingerprints of these files only. A file without a fingerprint counts as absent.
    #[must_use]
    pub fn only<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let absent = || Fingerprint {
            content: Content::Absent,
            status: None,
            settled: false,
        };
        let fingerprint = |path: &Path| {
            let known = self.0.get(path).cloned();
            (path.to_owned(), known.unwrap_or_else(absent))
        };
        Self(paths.into_iter().map(fingerprint).collect())
    }

    /// The files whose content differs from `before`.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Path> {
        self.0.iter().filter_map(|(path, now)| {
            let same = before.0.get(path).is_some_and(|b| b.content == now.content);
            (!same).then_some(path.as_path())
        })
    }
}

impl Fingerprint {
    fn of(path: &Path, before: Option<&Self>) -> Self {
        let metadata = fs::metadata(path).ok();
        let status = metadata.as_ref().map(Status::from);
        let same = before.filter(|before| before.status == status);
        if let Some(before) = same.filter(|before| before.settled) {
            return before.clone();
        }
        Self {
            content: match (&metadata, status) {
                (Some(metadata), Some(status)) => content(path, metadata, status),
                _ => Content::Absent,
            },
            status,
            settled: same.is_some(),
        }
    }
}

fn content(path: &Path, metadata: &Metadata, status: Status) -> Content {
    if !metadata.is_file() {
        return Content::NotRegular;
    }
    match digest(path) {
        Ok(Some(digest)) => Content::Digest(digest),
        Ok(None) => Content::Large(status),
        Err(_) => Content::Absent,
    }
}

/// The SHA-256 digest; `None` if the file is larger than [`MAX_BYTES`].
fn digest(path: &Path) -> io::Result<Option<[u8; 32]>> {
    let mut file = File::open(path)?.take(MAX_BYTES + 1);
    let mut context = Context::new(&SHA256);
    let mut total = 0;
    let mut piece = zeroize::Zeroizing::new([0; 8 * 1024]);
    loop {
        let read = file.read(&mut piece[..])?;
        if read == 0 {
            break;
        }
        total += read as u64;
        context.update(piece.get(..read).unwrap_or_default());
    }
    let digest = context.finish();
    Ok((total <= MAX_BYTES).then(|| digest.as_ref().try_into().unwrap_or_default()))
}
