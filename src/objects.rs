//! The bytes of files: objects with names that say what is in them, in a folder or in a bucket of an
//! S3-compatible store.
//!
//! Nothing here knows whose they are, or which are used.

mod s3;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
/// Why a storage operation failed.
pub use object_store::Error;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

/// How long a part of an upload may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// An upload that is larger is written in parts of this size, in bytes. S3 takes no smaller ones.
const PART: usize = 5 << 20;
/// How many parts of an upload are written at a time.
const PARTS: usize = 2;
/// Where uploads are until they are complete.
const UPLOADS: &str = "uploads";
/// What an upload leaves behind when the server is killed is removed after this time.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);

/// Why an upload was not received.
#[derive(Debug, thiserror::Error)]
pub enum NotReceived {
    /// It is larger than allowed.
    #[error("the file is too large")]
    TooLarge,
    /// The sender stopped, or was too slow.
    #[error("the upload was cut off")]
    Cut,
    /// It could not be stored.
    #[error("the file could not be stored")]
    Storage(#[from] Error),
}

/// The result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An upload that is complete, but has no name yet.
pub struct Received {
    place: Path,
    /// How many bytes it has.
    pub bytes: u64,
    /// The first of them.
    pub head: Vec<u8>,
    /// The name for these bytes.
    pub hash: String,
}

/// Where objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of an S3-compatible store.
    Bucket {
        /// Its name.
        name: String,
        /// What the names of all objects begin with.
        prefix: String,
    },
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(match text.strip_prefix("s3://") {
            None => Self::Folder(text.into()),
            Some(bucket) => {
                let (name, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
                Self::Bucket {
                    name: name.to_owned(),
                    prefix: prefix.to_owned(),
                }
            }
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "the folder {}", folder.display()),
            Self::Bucket { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

/// Objects in one place.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
}

/// The error of a writer, which wraps that of the storage.
fn storage(error: std::io::Error) -> Error {
    Error::Generic {
        store: "upload",
        source: Box::new(error),
    }
}

/// The name of an object with these bytes.
pub fn name_of(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder with all objects would be slow on some systems.
fn place_of(name: &str) -> Path {
    Path::from_iter([name.get(..2).unwrap_or("00"), name])
}

impl Objects {
    /// The objects in that place. A folder is created if it does not exist. Environment variables say which
    /// server has a bucket, and with which credentials; its server must have a certificate by one of the
    /// `authorities` in that PEM file, or else by one that browsers trust.
    pub fn open(
        place: &Place,
        variables: impl IntoIterator<Item = (String, String)>,
        authorities: Option<&std::path::Path>,
    ) -> Result<Self> {
        let store: Arc<dyn ObjectStore> = match place {
            Place::Folder(folder) => {
                let failed = |error| Error::Generic {
                    store: "folder",
                    source: Box::new(error),
                };
                std::fs::create_dir_all(folder).map_err(failed)?;
                Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true))
            }
            Place::Bucket { name, prefix } => {
                let bucket = s3::bucket(name, variables, authorities)?;
                Arc::new(PrefixStore::new(bucket, prefix.as_str()))
            }
        };
        Ok(Self { store })
    }

    /// Whether the place can be used.
    pub async fn reach(&self) -> Result<()> {
        let uploads = Path::from(UPLOADS);
        let first = self.store.list(Some(&uploads)).next().await;
        first.transpose().map(|_| ())
    }

    /// Receives an upload of at most `limit` bytes, and keeps the first `head_bytes` of them at hand. If it does
    /// not end well, nothing is left of it.
    pub async fn receive<E>(
        &self,
        mut body: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
        limit: u64,
        head_bytes: usize,
    ) -> std::result::Result<Received, NotReceived> {
        let place = Path::from_iter([UPLOADS, &Uuid::new_v4().to_string()]);
        let mut upload = BufWriter::with_capacity(Arc::clone(&self.store), place.clone(), PART)
            .with_max_concurrency(PARTS);
        let (mut bytes, mut head, mut hash) = (0, Vec::new(), Sha256::new());
        let arrived = async {
            loop {
                let next = tokio::time::timeout(PATIENCE, body.next()).await;
                let part = match next {
                    Ok(Some(Ok(part))) => part,
                    Ok(None) => return Ok(()),
                    Ok(Some(Err(_))) | Err(_) => return Err(NotReceived::Cut),
                };
                bytes += part.len() as u64;
                if bytes > limit {
                    return Err(NotReceived::TooLarge);
                }
                head.extend_from_slice(&part[..part.len().min(head_bytes - head.len())]);
                hash.update(&part);
                upload.put(part).await?;
            }
        };
        match arrived.await {
            Ok(()) => upload.shutdown().await.map_err(storage)?,
            Err(error) => {
                upload.abort().await?;
                return Err(error);
            }
        };
        let hash = hexadecimal(&hash.finalize());
        Ok(Received {
            place,
            bytes,
            head,
            hash,
        })
    }

    /// All bytes of an upload.
    pub async fn bytes(&self, received: &Received) -> Result<Bytes> {
        self.store.get(&received.place).await?.bytes().await
    }

    /// An upload becomes the object with its hash.
    pub async fn keep(&self, received: &Received) -> Result<()> {
        let place = place_of(&received.hash);
        self.store.rename(&received.place, &place).await
    }

    /// Removes an upload.
    pub async fn discard(&self, received: &Received) -> Result<()> {
        self.store.delete(&received.place).await
    }

    /// Stores an object.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&place_of(name), bytes.into()).await?;
        Ok(())
    }

    /// The bytes of an object, or a part of them.
    pub async fn read(
        &self,
        name: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes>>)> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&place_of(name), options).await?;
        Ok((found.meta.size, found.into_stream()))
    }

    /// Deletes an object, if it is there.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&place_of(name)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            done => done,
        }
    }

    /// Removes what is left of uploads that a server did not complete.
    pub async fn remove_forgotten(&self) -> Result<()> {
        let uploads: Vec<ObjectMeta> = self
            .store
            .list(Some(&Path::from(UPLOADS)))
            .try_collect()
            .await?;
        for upload in uploads {
            let age = std::time::SystemTime::now().duration_since(upload.last_modified.into());
            if age.unwrap_or_default() > FORGOTTEN {
                self.store.delete(&upload.location).await?;
            }
        }
        Ok(())
    }

    /// The names of all objects.
    pub async fn names(&self) -> Result<Vec<String>> {
        let names = self.store.list(None).try_filter_map(async |object| {
            let name = object.location.filename().map(str::to_owned);
            let is_upload = object.location.as_ref().starts_with(UPLOADS);
            Ok(name.filter(|_| !is_upload))
        });
        names.try_collect().await
    }
}
