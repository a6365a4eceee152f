//! Files: which there are, who may read them, and which of their objects are no longer used.
//!
//! The bytes are elsewhere. A file is stored before its object, and an object is deleted a while after
//! its last file: so whoever uploads the same bytes meanwhile loses nothing.

use std::time::Duration;

use super::rooms::room;
use super::tx::{FromRow, Hold, Locks, Row, Sql, Tx, span};
use super::users::{USER, check_may_write, standing};
use super::{Post, Refused, Result, Store, TOKEN_GOOD_FOR, accounts};
use crate::model::{File, FileId, MessageId, Millis, Picture, RoomId, TokenHash, User, UserId};

/// How long a file waits for its message.
const WAITS: Duration = Duration::from_secs(60 * 60);
/// How long an object is kept after its last file, longer than any transaction takes.
const KEPT: Duration = Duration::from_secs(60);
/// Who claimed an object longer ago has failed to delete it.
const CLAIM: Duration = Duration::from_secs(5 * 60);
/// How many rows of each kind one round handles at most.
const AT_ONCE: usize = 500;

/// A file and its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// The file.
    pub file: File,
    /// The name of the object with its bytes.
    pub hash: String,
    /// The name of the object with the smaller picture, if there is one.
    pub thumbnail: Option<String>,
}

impl Store {
    /// The person who sends a file: by the resume token of their tab, otherwise by their session.
    pub async fn sender(
        &self,
        tab: Option<TokenHash>,
        session: Option<TokenHash>,
    ) -> Result<Option<User>> {
        self.read("sender", async move |tx| {
            let session = match session {
                Some(token) => accounts::session(tx, token).await?,
                None => None,
            };
            let Some(tab) = tab else {
                return Ok(session.map(|session| session.user));
            };
            let user = format!(
                "select {USER} from clients c join users u on u.id = c.user_id
                 where c.token_hash = $1 and c.session_id is not distinct from $2
                 and (c.left_at is null or c.left_at > (select millis()) - $3)"
            );
            let id = session.map(|session| session.id);
            let values = [&tab as _, &id as _, &span(TOKEN_GOOD_FOR) as _];
            tx.one(&user, &values).await
        })
        .await
    }

    /// Refuses a file for a room that the user cannot see or may not write in.
    pub async fn may_send_file(&self, user: UserId, to: RoomId) -> Result<()> {
        self.read("may_send_file", async move |tx| {
            room(tx, user, to).await?.ok_or(Refused::NoSuchRoom)?;
            let standing = standing(tx, user).await?;
            match standing.muted || standing.banned {
                true => Err(Refused::Muted.into()),
                false => Ok(()),
            }
        })
        .await
    }

    /// Adds a file that waits for its message, before its objects are stored. Returns false if one of
    /// them is being deleted just now; then nothing is added.
    pub async fn add_file(&self, user: UserId, to: RoomId, new: StoredFile) -> Result<bool> {
        self.write("add_file", Locks::none(), async move |tx| {
            room(tx, user, to).await?.ok_or(Refused::NoSuchRoom)?;
            check_may_write(tx, user).await?;
            let objects: Vec<String> = [Some(&new.hash), new.thumbnail.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect();
            let used = format!(
                "delete from unused_objects where claimed_at is null and hash {}",
                tx.among(1)
            );
            tx.run(&used, &[&objects]).await?;
            let claimed = format!(
                "select exists (select 1 from unused_objects where hash {})",
                tx.among(1)
            );
            if tx.the(&claimed, &[&objects]).await? {
                return Ok(false);
            }
            let file = &new.file;
            let size = file.picture.as_ref();
            let size = size.map(|picture| (u64::from(picture.width), u64::from(picture.height)));
            tx.run(
                "insert into files (id, room_id, user_id, name, media_type, bytes, hash,
                    width, height, thumbnail, made_at)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                &[
                    &file.id,
                    &to,
                    &user,
                    &file.name,
                    &file.media_type,
                    &file.bytes,
                    &new.hash,
                    &size.map(|(width, _)| width),
                    &size.map(|(_, height)| height),
                    &new.thumbnail,
                    &tx.now,
                ],
            )
            .await?;
            Ok(true)
        })
        .await
    }

    /// Removes a file whose object could not be stored.
    pub async fn remove_file(&self, file: FileId) -> Result<()> {
        self.write("remove_file", Locks::none(), async move |tx| {
            let removed = "delete from files where id = $1 and message_id is null";
            tx.run(removed, &[&file]).await
        })
        .await
    }

    /// A file that was sent, if everybody or one of these people may read its room; or one that is about to be
    /// sent by one of them.
    pub async fn file(&self, id: FileId, people: Vec<User>) -> Result<Option<StoredFile>> {
        self.read("file", async move |tx| {
            let file = format!(
                "select room_id, case when message_id is null then user_id end, {FILE}
                 from files where id = $1"
            );
            let found: Option<(RoomId, Option<UserId>, StoredFile)> = tx.one(&file, &[&id]).await?;
            let Some((at, waits_for, file)) = found else {
                return Ok(None);
            };
            let mut people = people.iter().map(|user| user.id);
            if let Some(sender) = waits_for {
                return Ok(people.any(|user| user == sender).then_some(file));
            }
            for reader in [UserId::NOBODY].into_iter().chain(people) {
                if room(tx, reader, at).await?.is_some() {
                    return Ok(Some(file));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Deletes files that have waited too long for their message, and claims the objects that no file
    /// has had for a while: the caller deletes these, and then [forgets](Self::forget_objects) them.
    pub async fn unused_objects(&self, now: Millis) -> Result<Vec<String>> {
        let (waiting, unused, claimed) = (now.before(WAITS), now.before(KEPT), now.before(CLAIM));
        let due = self.ask("unused_objects", async move |tx| {
            let due =
                "select exists (select 1 from files where message_id is null and made_at < $1)
                or exists (select 1 from unused_objects where since < $2)";
            tx.the(due, &[&waiting, &unused]).await
        });
        if !due.await? {
            return Ok(Vec::new());
        }
        self.write("unused_objects", Locks::none(), async move |tx| {
            tx.run(
                "delete from files where id in (select id from files
                    where message_id is null and made_at < $1 limit $2)",
                &[&waiting, &AT_ONCE],
            )
            .await?;
            let used = format!("delete from unused_objects where {USED}");
            tx.run(&used, &[]).await?;
            let claim = format!(
                "update unused_objects set claimed_at = $1 where hash in (
                    select hash from unused_objects where since < $2 limit $3)
                 and (claimed_at is null or claimed_at < $4) and not ({USED}) returning hash"
            );
            tx.all(&claim, &[&now, &unused, &AT_ONCE, &claimed]).await
        })
        .await
    }

    /// These objects are deleted.
    pub async fn forget_objects(&self, objects: Vec<String>) -> Result<()> {
        self.write("forget_objects", Locks::none(), async move |tx| {
            let forgotten = format!("delete from unused_objects where hash {}", tx.among(1));
            tx.run(&forgotten, &[&objects]).await
        })
        .await
    }
}

/// Whether a file has the object of a row of `unused_objects`.
const USED: &str = "exists (select 1 from files f where f.hash = unused_objects.hash)
    or exists (select 1 from files f where f.thumbnail = unused_objects.hash)";

/// The columns of a [`StoredFile`].
const FILE: &str = "id, name, media_type, bytes, width, height, thumbnail, hash";

impl FromRow for StoredFile {
    fn read(row: &mut Row<'_>) -> Sql<Self> {
        let (id, name, media_type, bytes) = row.get()?;
        let size: (Option<u32>, Option<u32>) = row.get()?;
        let thumbnail: Option<String> = row.get()?;
        let picture = match size {
            (Some(width), Some(height)) => Some(Picture {
                width,
                height,
                thumbnail: thumbnail.is_some(),
            }),
            _ => None,
        };
        Ok(Self {
            file: File {
                id,
                name,
                media_type,
                bytes,
                picture,
            },
            hash: row.get()?,
            thumbnail,
        })
    }
}

/// The files that a message is sent with: the author's own, for this room, that no message has yet.
pub(super) async fn taken(tx: &Tx<'_>, post: &Post) -> Sql<Vec<File>> {
    let mut ids = Vec::new();
    for FileId(file) in &post.files {
        if !ids.contains(file) {
            ids.push(*file);
        }
    }
    let waiting = format!(
        "select {FILE} from files where id {} and user_id = $2 and room_id = $3
         and message_id is null order by id",
        tx.among(1)
    );
    let waiting = tx.hold(&waiting, Hold::Change);
    let values = [&ids as _, &post.by.user as _, &post.room as _];
    let found: Vec<StoredFile> = tx.all(&waiting, &values).await?;
    let one = |id: &FileId| found.iter().find(|stored| stored.file.id == *id);
    let files = ids
        .iter()
        .map(|id| one(&FileId(*id)).map(|one| one.file.clone()));
    let files: Option<Vec<_>> = files.collect();
    Ok(files.ok_or(Refused::NoSuchFile)?)
}

/// From now on these files are the message's.
pub(super) async fn give(tx: &Tx<'_>, files: &[File], message: MessageId) -> Sql<()> {
    let ids: Vec<i64> = files.iter().map(|file| file.id.0).collect();
    let given = format!("update files set message_id = $1 where id {}", tx.among(2));
    tx.run(&given, &[&message, &ids]).await
}

/// Deletes the files of a message.
pub(super) async fn delete_of(tx: &Tx<'_>, message: MessageId) -> Sql<()> {
    tx.run("delete from files where message_id = $1", &[&message])
        .await
}

/// Deletes the files of a room.
pub(super) async fn delete_in(tx: &Tx<'_>, room: RoomId) -> Sql<()> {
    let shown = "update messages set files = null
        where id in (select message_id from files where room_id = $1)";
    tx.run(shown, &[&room]).await?;
    tx.run("delete from files where room_id = $1", &[&room])
        .await
}

/// Deletes all files. Truncating a table would not note their objects.
pub(super) async fn delete_all(tx: &Tx<'_>) -> Sql<()> {
    tx.run("delete from files", &[]).await
}
