//! Opens files of one directory, and nothing that is elsewhere.
//!
//! The kernel follows the path and refuses each step that leaves the directory, through `..` or through a symbolic link
//! (openat2(2), `RESOLVE_BENEATH`); there is no moment between a check and the opening. Links that stay inside are followed,
//! except absolute ones. What begins with a dot is hidden, and what is no regular file does not exist.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat2},
    io::Errno,
};
use tokio::{
    io::{AsyncRead, AsyncSeek, ReadBuf},
    task::spawn_blocking,
};
use tower_http::services::fs::{Backend, File};

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Files below a directory.
#[derive(Clone, Debug)]
pub(super) struct Beneath(Arc<Path>);

/// A file that was opened.
pub(super) struct OpenFile(tokio::fs::File);

impl Beneath {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.into())
    }
}

impl Backend for Beneath {
    type File = OpenFile;
    type Metadata = fs::Metadata;
    type OpenFuture = Opening<OpenFile>;
    type MetadataFuture = Opening<fs::Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let directory = Arc::clone(&self.0);
        Box::pin(async move {
            let (file, _) = spawn_blocking(move || open_beneath(&directory, &path)).await??;
            Ok(OpenFile(tokio::fs::File::from_std(file)))
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let directory = Arc::clone(&self.0);
        Box::pin(async move {
            let (_, metadata) = spawn_blocking(move || open_beneath(&directory, &path)).await??;
            Ok(metadata)
        })
    }
}

fn open_beneath(directory: &Path, path: &Path) -> io::Result<(fs::File, fs::Metadata)> {
    if is_hidden(path) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Anew each time: it may have been put in the place of another one since.
    let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Nobody has to wait for the other end of a pipe.
    let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&directory, path, how, Mode::empty(), resolve).map_err(|error| match error {
        Errno::XDEV | Errno::LOOP | Errno::NXIO => io::ErrorKind::NotFound.into(),
        other => io::Error::from(other),
    })?;
    let file = fs::File::from(file);
    let metadata = file.metadata()?;
    let is_plain = metadata.is_file() || metadata.is_dir();
    if is_plain { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn is_hidden(path: &Path) -> bool {
    path.components().any(|component| match component {
        Component::Normal(name) => name.as_encoded_bytes().starts_with(b"."),
        Component::CurDir => false,
        Component::Prefix(_) | Component::RootDir | Component::ParentDir => true,
    })
}

impl File for OpenFile {
    type Metadata = fs::Metadata;
    type MetadataFuture<'a> = Pin<Box<dyn Future<Output = io::Result<fs::Metadata>> + Send + 'a>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.0.metadata())
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}
