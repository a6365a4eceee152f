//! What pages show, read at once: all of it before the tab has connected, and what is its own when it enters a room.

use std::sync::Arc;

use super::accounts::session;
use super::messages::{CatchUp, PageAt, catch_up, newest, page_at, reactions_of};
use super::people::{guest, people_of};
use super::rooms::{busiest_groups, group, groups, is_muted, private_room_of, read_mark, topic};
use super::tx::{Sql, Tx};
use super::{Newest, RESTRICTED, Result, Store, StoreError};
use crate::model::{
    Busy, ClientRef, Emoji, Listed, MessageId, Page, Person, Room, RoomId, RoomKind, Target,
    TokenHash, User, UserId, Version,
};

/// What a page is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The session of who reads it,
    pub session: Option<TokenHash>,
    /// or without a valid one, the token of the guest of their browser's forms.
    pub guest: Option<TokenHash>,
    /// The room at its address.
    pub target: Option<Target>,
    /// Whether it shows the directory of groups, as it does in place of a group that there is not.
    pub lobby: bool,
    /// The messages around this one,
    pub at: Option<MessageId>,
    /// or before this one,
    pub before: Option<MessageId>,
    /// or after this one; otherwise the newest.
    pub after: Option<MessageId>,
    /// How many groups it lists at most.
    pub groups: usize,
    /// How many people it lists at most.
    pub people: usize,
    /// How many groups the directory lists at most.
    pub busiest: usize,
}

/// What a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Who reads it, if that is known, and whether they are a guest. Nobody banned.
    pub reader: Option<(User, bool)>,
    /// The groups in the reader's list.
    pub groups: Vec<Listed>,
    /// The people they talk with.
    pub people: Vec<Person>,
    /// The room, if they can see it, and its messages.
    pub room: Option<(Room, Arc<Page>)>,
    /// Whether that is the newest page.
    pub newest: bool,
    /// What the group is about.
    pub topic: Option<String>,
    /// The directory.
    pub lobby: Option<Vec<Busy>>,
}

/// What a tab in a room shows that is its user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The groups in their list.
    pub groups: Vec<Listed>,
    /// What the room is about, and whether they may change that.
    pub topic: (Option<String>, bool),
    /// Whether they have turned its news off.
    pub muted: bool,
    /// Up to which message they have read it. For a newcomer that is the newest.
    pub read: MessageId,
    /// Their reactions there, those to the newest messages first.
    pub reactions: Vec<(MessageId, Emoji)>,
}

impl Store {
    /// What is the user's own in a room, at most so many groups and reactions, and the catch-up of a reader who has
    /// version `after`, in one snapshot, in which the client is connected.
    pub async fn own(
        &self,
        client: ClientRef,
        user: UserId,
        (room, after): (RoomId, Option<Version>),
        most_groups: usize,
        most_reactions: usize,
    ) -> Result<(Own, CatchUp)> {
        let all = (MessageId(0), MessageId(i64::MAX));
        let known = Arc::clone(&self.newest);
        self.read("own", async move |tx| {
            let connected = "select exists (
                select 1 from clients where id = $1 and visit = $2 and left_at is null)";
            if !tx
                .the::<bool>(connected, &[&client.client, &client.visit])
                .await?
            {
                return Err(StoreError::Gone.into());
            }
            let own = Own {
                groups: groups(tx, Some(user), most_groups).await?,
                topic: topic(tx, user, room).await?,
                muted: is_muted(tx, user, room).await?,
                read: read_mark(tx, user, room).await?.unwrap_or(MessageId(0)),
                reactions: reactions_of(tx, user, room, all, most_reactions).await?,
            };
            Ok((own, catch_up(tx, &known, room, after).await?))
        })
        .await
    }

    /// All that a page shows, in one snapshot.
    pub async fn first_page(&self, wanted: Wanted) -> Result<Shown> {
        let known = Arc::clone(&self.newest);
        self.read("first_page", async move |tx| {
            first_page(tx, &known, &wanted).await
        })
        .await
    }
}

async fn first_page(tx: &Tx<'_>, known: &Newest, wanted: &Wanted) -> Sql<Shown> {
    let Wanted { at, .. } = *wanted;
    let reader = reader(tx, wanted).await?;
    let me = reader.as_ref().map(|(user, _)| user.id);
    let room = match &wanted.target {
        // A restricted group is looked up with the rights of the person.
        Some(Target::Group(name)) => {
            let me = me.filter(|_| name.starts_with(RESTRICTED));
            group(tx, me, name).await?
        }
        // The answer is the same whether that person exists or not.
        Some(Target::Private(name)) => match me {
            Some(me) => private_room_of(tx, me, name).await?,
            None => None,
        },
        _ => None,
    };
    let place = match (at, wanted.before, wanted.after) {
        (Some(at), ..) => Some(PageAt::Around(at)),
        (_, Some(before), _) => Some(PageAt::Before(before)),
        (_, _, after) => after.map(PageAt::After),
    };
    let room = match (room, place) {
        (Some(room), Some(place)) => {
            let mut page = page_at(tx, room.id, place).await?;
            // There is at least the message that it was asked for by.
            page.newer |= matches!(place, PageAt::Before(_));
            page.older |= matches!(place, PageAt::After(_));
            Some((room, Arc::new(page)))
        }
        (Some(room), None) => {
            let page = newest(tx, known, room.id).await?;
            Some((room, page))
        }
        (None, _) => None,
    };
    let topic = match &room {
        Some((room, _)) if matches!(room.kind, RoomKind::Group(_)) => {
            topic(tx, UserId::NOBODY, room.id).await?.0
        }
        _ => None,
    };
    let is_missing = room.is_none() && matches!(wanted.target, Some(Target::Group(_)));
    Ok(Shown {
        reader,
        groups: groups(tx, me, wanted.groups).await?,
        people: match me {
            Some(me) => people_of(tx, me, wanted.people).await?,
            None => Vec::new(),
        },
        room,
        newest: place.is_none(),
        topic,
        lobby: match wanted.lobby || is_missing {
            true => Some(busiest_groups(tx, wanted.busiest).await?),
            false => None,
        },
    })
}

async fn reader(tx: &Tx<'_>, wanted: &Wanted) -> Sql<Option<(User, bool)>> {
    if let Some(token) = wanted.session
        && let Some(session) = session(tx, token).await?
    {
        return Ok(Some((session.user, false)));
    }
    match wanted.guest {
        Some(token) => Ok(guest(tx, token).await?.map(|user| (user, true))),
        None => Ok(None),
    }
}
