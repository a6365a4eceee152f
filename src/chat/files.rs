//! Files: receiving and keeping them until a message has them, and who may read them.
//!
//! Knows neither requests nor where objects are.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Chat, MUTED, Visitor, log_failure};
use crate::metrics::METRICS;
use crate::model::{File, FileId, Millis, Picture, ResumeToken, RoomId, Target, User, UserId};
use crate::objects::{self, NotReceived, Objects, Received};
use crate::pictures;
use crate::protocol::NO_SUCH_ROOM;
use crate::store::{Refused, StoreError, StoredFile};

/// How many files one person may send at a time.
const AT_ONCE: u32 = 10;
/// How many files of the largest size one person may send in a minute.
const PER_MINUTE: u64 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// How often unused files are looked for.
const SWEEPS: Duration = Duration::from_secs(60);
/// How often, and how long, an upload waits for an object of the same bytes to be deleted.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// What people may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kinds {
    /// Any file.
    Any,
    /// Pictures only.
    Pictures,
    /// Nothing.
    Off,
}

/// The files of a chat.
pub struct Files {
    objects: Objects,
    kinds: Kinds,
    /// The largest file, in bytes.
    most_bytes: u64,
    senders: Arc<Mutex<HashMap<UserId, Tally>>>,
    /// Pictures take much memory, so they are decoded one at a time.
    decoding: Arc<Semaphore>,
}

/// What one person has sent within a minute.
#[derive(Clone, Copy)]
struct Tally {
    under_way: u32,
    since: Instant,
    bytes: u64,
}

/// A file that is being sent.
struct UnderWay {
    senders: Arc<Mutex<HashMap<UserId, Tally>>>,
    user: UserId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(tally) = self.senders.lock().get_mut(&self.user) {
            tally.under_way -= 1;
        }
    }
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Nobody can send files here.
    #[error("Files cannot be sent here.")]
    Off,
    /// The token or the session has expired.
    #[error("Your session has expired. Reload the page and try again.")]
    Stranger,
    /// There is no such room, or they cannot see it.
    #[error("{NO_SUCH_ROOM}")]
    NoSuchRoom,
    /// They are muted.
    #[error("{MUTED}")]
    Muted,
    /// It has no bytes.
    #[error("The file is empty.")]
    Empty,
    /// It has more bytes than this.
    #[error("The file is too large. The limit is {} MiB.", .0 >> 20)]
    TooLarge(u64),
    /// Only pictures can be sent.
    #[error("Only pictures can be sent here: PNG, JPEG, GIF or WebP.")]
    NoPicture,
    /// They send too many at a time, or too much.
    #[error("You are sending too many files. Please wait a moment.")]
    TooMany,
    /// It did not arrive whole.
    #[error("The file did not arrive whole. Please try again.")]
    Cut,
    /// The same bytes are being deleted.
    #[error("The file is busy. Please try again in a moment.")]
    Busy,
    /// The disk, or whatever files are stored on, failed.
    #[error("The server could not store the file. Please try again.")]
    Storage(#[from] objects::Error),
    /// The store failed.
    #[error("The server could not store the file. Please try again.")]
    Store(#[source] StoreError),
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(Refused::NoSuchRoom) => Self::NoSuchRoom,
            StoreError::Refused(Refused::Muted) => Self::Muted,
            error => Self::Store(error),
        }
    }
}

impl From<NotReceived> for NotTaken {
    fn from(error: NotReceived) -> Self {
        match error {
            // Whoever knows the limit says so.
            NotReceived::TooLarge | NotReceived::Cut => Self::Cut,
            NotReceived::Storage(error) => Self::Storage(error),
        }
    }
}

type Result<T> = std::result::Result<T, NotTaken>;

impl Files {
    /// Files of at most that many bytes, with their bytes in these objects.
    pub fn new(objects: Objects, kinds: Kinds, most_bytes: u64) -> Self {
        Self {
            objects,
            kinds,
            most_bytes,
            senders: Arc::default(),
            decoding: Arc::new(Semaphore::new(1)),
        }
    }

    /// Counts one more file of that person, unless there are too many.
    fn begin(&self, user: UserId) -> Option<UnderWay> {
        let (mut senders, now) = (self.senders.lock(), Instant::now());
        let is_recent = |tally: &Tally| now < tally.since + MINUTE;
        senders.retain(|_, tally| tally.under_way > 0 || is_recent(tally));
        let tally = senders.entry(user).or_insert(Tally {
            under_way: 0,
            since: now,
            bytes: 0,
        });
        if !is_recent(tally) {
            (tally.since, tally.bytes) = (now, 0);
        }
        if tally.under_way >= AT_ONCE || tally.bytes >= self.most_bytes.saturating_mul(PER_MINUTE) {
            return None;
        }
        tally.under_way += 1;
        let senders = Arc::clone(&self.senders);
        Some(UnderWay { senders, user })
    }

    fn count(&self, user: UserId, bytes: u64) {
        METRICS.file_bytes.inc_by(bytes);
        if let Some(tally) = self.senders.lock().get_mut(&user) {
            tally.bytes += bytes;
        }
    }
}

/// What a received file becomes, and the objects to store for it. Without objects, it is kept as it is.
struct Made {
    file: StoredFile,
    objects: Vec<(String, Bytes)>,
}

impl Chat {
    /// From now on, people can send files.
    pub fn start_files(self: &Arc<Self>, files: Files) {
        if self.files.set(files).is_ok() {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// The largest file that people can send, in bytes; `None` if they cannot send any.
    pub fn file_limit(&self) -> Option<u64> {
        let files = self.files.get().filter(|files| files.kinds != Kinds::Off)?;
        Some(files.most_bytes)
    }

    /// Who sends a file, and where to: the person of the tab with that token or, without one, of the
    /// session; and the room with that id, or the group of that name.
    pub async fn file_sender(
        &self,
        tab: Option<&ResumeToken>,
        by: &Visitor,
        to: &Target,
    ) -> Result<(User, RoomId)> {
        self.file_limit().ok_or(NotTaken::Off)?;
        let session = by.session.as_ref().map(|session| session.hash());
        let user = self.store.sender(tab.map(|tab| tab.hash()), session);
        let user = user.await?.ok_or(NotTaken::Stranger)?;
        let room = match to {
            Target::Room(room) => *room,
            Target::Group(name) => {
                let group = self.store.group(name, Some(user.id)).await?;
                group.ok_or(NotTaken::NoSuchRoom)?.id
            }
            Target::Private(_) => return Err(NotTaken::NoSuchRoom),
        };
        self.store.may_send_file(user.id, room).await?;
        Ok((user, room))
    }

    /// Receives a file, which then waits for its message.
    pub async fn take_file<E>(
        &self,
        user: &User,
        room: RoomId,
        name: &str,
        body: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    ) -> Result<File> {
        let files = self.files.get().ok_or(NotTaken::Off)?;
        let _under_way = match self.limits.pace_per_second {
            Some(_) => Some(files.begin(user.id).ok_or(NotTaken::TooMany)?),
            None => None,
        };
        let objects = &files.objects;
        let received = match objects
            .receive(body, files.most_bytes, pictures::HEAD)
            .await
        {
            Err(NotReceived::TooLarge) => return Err(NotTaken::TooLarge(files.most_bytes)),
            received => received?,
        };
        files.count(user.id, received.bytes);
        let kept = match make(files, &received, name).await {
            Ok(made) => self.keep_file(files, user, room, &received, made).await,
            Err(error) => Err(error),
        };
        // What was not renamed is not needed any more.
        match objects.discard(&received).await {
            Ok(()) | Err(objects::Error::NotFound { .. }) => {}
            Err(error) => log_failure("remove an upload", &error),
        }
        kept
    }

    /// Stores a file and then its objects.
    async fn keep_file(
        &self,
        files: &Files,
        user: &User,
        room: RoomId,
        received: &Received,
        made: Made,
    ) -> Result<File> {
        let file = made.file.file.clone();
        let mut attempts = ATTEMPTS;
        while !self
            .store
            .add_file(user.id, room, made.file.clone())
            .await?
        {
            attempts -= 1;
            if attempts == 0 {
                return Err(NotTaken::Busy);
            }
            tokio::time::sleep(PAUSE).await;
        }
        let storing = async {
            if made.objects.is_empty() {
                return files.objects.keep(received).await;
            }
            for (name, bytes) in made.objects {
                files.objects.put(&name, bytes).await?;
            }
            Ok(())
        };
        if let Err(error) = storing.await {
            self.store.remove_file(file.id).await?;
            return Err(error.into());
        }
        Ok(file)
    }

    /// A file, if the visitor may read its room.
    pub async fn file(
        &self,
        id: FileId,
        by: &Visitor,
    ) -> std::result::Result<Option<StoredFile>, StoreError> {
        let (session, browser) = (by.session.as_ref(), by.browser.as_ref());
        let people = self
            .store
            .people_of_browser(session.map(|one| one.hash()), browser.map(|one| one.hash()));
        self.store.file(id, people.await?).await
    }

    /// The objects with the bytes of files.
    pub fn objects(&self) -> Option<&Objects> {
        Some(&self.files.get()?.objects)
    }

    /// Deletes what no message has had for a while, as of that moment.
    pub async fn sweep_files(&self, now: Millis) -> std::result::Result<(), SweepFailed> {
        let Some(objects) = self.objects() else {
            return Ok(());
        };
        loop {
            let unused = self.store.unused_objects(now).await?;
            if unused.is_empty() {
                break;
            }
            for name in &unused {
                objects.delete(name).await?;
            }
            self.store.forget_objects(unused).await?;
        }
        Ok(objects.remove_forgotten().await?)
    }
}

/// Why unused files were not deleted.
#[derive(Debug, thiserror::Error)]
pub enum SweepFailed {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What files are stored on failed.
    #[error(transparent)]
    Objects(#[from] objects::Error),
}

async fn sweep(chat: Weak<Chat>) {
    loop {
        tokio::time::sleep(SWEEPS).await;
        let Some(chat) = chat.upgrade() else { return };
        if let Err(error) = chat.sweep_files(Millis::now()).await {
            log_failure("delete unused files", &error);
        }
    }
}

async fn make(files: &Files, received: &Received, name: &str) -> Result<Made> {
    if received.bytes == 0 {
        return Err(NotTaken::Empty);
    }
    let mut file = File {
        id: FileId::random(),
        name: File::name_of(name),
        media_type: File::ANY_BYTES.to_owned(),
        bytes: received.bytes,
        picture: None,
    };
    let Some(kept) = picture(files, received).await? else {
        if files.kinds == Kinds::Pictures {
            return Err(NotTaken::NoPicture);
        }
        let file = StoredFile {
            file,
            hash: received.hash.clone(),
            thumbnail: None,
        };
        let objects = Vec::new();
        return Ok(Made { file, objects });
    };
    file.media_type = kept.media_type.to_owned();
    file.name = File::name_of(&pictures::name_as(&file.name, kept.media_type));
    file.bytes = kept.bytes.len() as u64;
    file.picture = Some(Picture {
        width: kept.width,
        height: kept.height,
        thumbnail: kept.thumbnail.is_some(),
    });
    let small = kept.thumbnail.map(|(small, ending)| {
        let name = format!("{}{ending}", objects::name_of(&small));
        (name, small)
    });
    let file = StoredFile {
        file,
        hash: objects::name_of(&kept.bytes),
        thumbnail: small.as_ref().map(|(name, _)| name.clone()),
    };
    let objects = small.into_iter().chain([(file.hash.clone(), kept.bytes)]);
    let objects = objects.collect();
    Ok(Made { file, objects })
}

async fn picture(files: &Files, received: &Received) -> Result<Option<pictures::Kept>> {
    if !pictures::may_be(&received.head) {
        return Ok(None);
    }
    let Ok(turn) = Arc::clone(&files.decoding).acquire_owned().await else {
        return Ok(None);
    };
    let bytes = files.objects.bytes(received).await?;
    let decoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        pictures::decode(bytes)
    });
    // A decoder that panics has found no picture.
    Ok(decoding.await.unwrap_or_default())
}
