//! Search: showing results, and keeping the index of the store up to date.
//!
//! The results are a page without a room, like the lobby, with an address of their own.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::rooms::OF_A_ROOM;
use super::{Chat, Client, Result, log_failure};
use crate::hub::Region;
use crate::model::{History, MessageId, RoomId, Version};
use crate::protocol::{MENTIONS, PAGE_MESSAGES, Push, SEARCH_CHARACTERS, Selector};
use crate::search::Query;
use crate::store::{Change, StoreError, Unindexed};

/// What changes within this time is indexed together.
const GATHERS: Duration = Duration::from_secs(1);
/// The index is built for at most a tenth of the time, so that posts are hardly delayed by it.
const PAUSES: u32 = 9;
/// How long until the next attempt after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// The rooms with changes that are not indexed.
pub(super) struct Unsearchable {
    rooms: Mutex<HashSet<RoomId>>,
    wake: mpsc::Sender<()>,
}

impl Unsearchable {
    /// With the receiver that wakes [`keep_index`].
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (wake, woken) = mpsc::channel(1);
        let rooms = Mutex::default();
        (Self { rooms, wake }, woken)
    }

    pub(super) fn note(&self, change: &Change) {
        if change.message.worded == change.version.number {
            self.add([change.message.room]);
        }
    }

    fn add(&self, rooms: impl IntoIterator<Item = RoomId>) {
        self.rooms.lock().extend(rooms);
        // If it is full, the task is about to wake.
        let _ = self.wake.try_send(());
    }
}

/// Keeps the index up to date, until the chat has ended or its store is closed.
pub(super) async fn keep_index(chat: Weak<Chat>, mut woken: mpsc::Receiver<()>) {
    let mut begun = false;
    loop {
        let Some(chat) = chat.upgrade() else { return };
        let indexed = match begun {
            false => begin(&chat).await.inspect(|_| begun = true),
            true => index(&chat).await,
        };
        drop(chat);
        let wait = match indexed {
            Ok(true) => continue,
            Ok(false) => match woken.recv().await {
                Some(()) => GATHERS,
                None => return,
            },
            Err(StoreError::Closed) => return,
            Err(error) => {
                log_failure("update the index of the search", &error);
                AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn begin(chat: &Chat) -> std::result::Result<bool, StoreError> {
    let rooms = chat.store.begin_indexing().await?;
    chat.unsearchable.add(rooms);
    Ok(true)
}

/// Indexes the next part. Returns whether there may be more.
async fn index(chat: &Chat) -> std::result::Result<bool, StoreError> {
    let room = chat.unsearchable.rooms.lock().iter().next().copied();
    let Some(room) = room else {
        let part = chat.store.unindexed_before().await?;
        return index_part(chat, part).await;
    };
    // Noted again if it changes from here on.
    chat.unsearchable.rooms.lock().remove(&room);
    let indexed = async {
        let part = chat.store.unindexed(room).await?;
        index_part(chat, part).await
    };
    let indexed = indexed.await;
    if !matches!(indexed, Ok(false)) {
        chat.unsearchable.rooms.lock().insert(room);
    }
    indexed.map(|_| true)
}

async fn index_part(chat: &Chat, part: Option<Unindexed>) -> std::result::Result<bool, StoreError> {
    let Some(part) = part else { return Ok(false) };
    let began = Instant::now();
    chat.store.index(part).await?;
    tokio::time::sleep(began.elapsed() * PAUSES).await;
    Ok(true)
}

impl Chat {
    /// Shows what a search finds; before a message, what it finds there in addition.
    pub(super) async fn search(
        &self,
        client: &Client,
        typed: &str,
        before: Option<MessageId>,
    ) -> Result<()> {
        if !client.outbox.dialect.has(&Selector::SEARCH_PAGE) {
            return Ok(());
        }
        let mut typed: String = typed.trim().chars().take(SEARCH_CHARACTERS).collect();
        if typed.eq_ignore_ascii_case(MENTIONS) {
            MENTIONS.clone_into(&mut typed);
        }
        let query = Query::of(&typed);
        let me = client.user.id;
        let store = &self.store;
        let found = match &*typed {
            MENTIONS => store.mentions(me, before, PAGE_MESSAGES).await?,
            _ => {
                store
                    .search(me, query.clone(), before, PAGE_MESSAGES)
                    .await?
            }
        };
        if before.is_some() {
            let older = self.views.older_results(&typed, &query, &found)?;
            self.push(client, older);
            return Ok(());
        }
        self.show_search(client).await?;
        let heading = self.views.search_name(&typed)?;
        let page = self.views.search_page(&typed, &query, &found)?;
        self.push(client, [page, heading]);
        Ok(())
    }

    /// Moves the client from its room to the page with the results.
    async fn show_search(&self, client: &Client) -> Result<()> {
        let place = client.outbox.place().map(|place| place.room);
        if place == Some(RoomId::SEARCH) {
            return Ok(());
        }
        let moved = self.store.leave_room(client.client_ref).await?;
        self.write_reads_of(client.user.id).await?;
        let groups = self.groups(client, None).await?;
        let groups = groups.filter(|groups| client.outbox.is_new(Region::Groups, groups));
        self.push(client, OF_A_ROOM.map(Push::empty));
        let no_lobby = Push::empty(Selector::LOBBY);
        self.push(client, [no_lobby, self.views.no_messages()?]);
        client.outbox.push(groups);
        let (former, _) = self.hub.enter(&client.outbox, RoomId::SEARCH, None);
        let nothing = Version {
            room: RoomId::SEARCH,
            history: History(0),
            number: 0,
        };
        client.outbox.bring(RoomId::SEARCH, nothing, []);
        let from = former.map(|place| place.room);
        self.entered(&client.user, None, from, moved, false);
        Ok(())
    }
}
