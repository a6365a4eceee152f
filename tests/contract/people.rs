//! What people do in a store, for all the tests that have people in it.

use overwire::model::{
    ClientRef, Emoji, File, FileId, GroupName, Message, MessageId, MessageText, NewUser, NodeId,
    PasswordHash, Picture, ResumeToken, Room, RoomId, Target, TokenHash, User, Wording,
};
use overwire::moderation::Moderated;
use overwire::protocol::ModeratorAction;
use overwire::store::{
    self, Actor, Arrival, Arrived, NewSession, Post, Posted, Refused, Resume, Store, StoreError,
    StoredFile,
};
use uuid::Uuid;

pub(crate) const NODE: NodeId = NodeId(1);
pub(crate) const OTHER_NODE: NodeId = NodeId(2);

/// Somebody who has arrived.
#[derive(Clone, Debug)]
pub(crate) struct Somebody {
    pub(crate) client: ClientRef,
    pub(crate) user: User,
    pub(crate) token: TokenHash,
}

impl Somebody {
    /// They do something by a node.
    pub(crate) fn on(&self, node: NodeId) -> Actor {
        Actor {
            node,
            client: self.client,
            user: self.user.id,
        }
    }

    pub(crate) fn here(&self) -> Actor {
        self.on(NODE)
    }

    /// The person who arrived with this token.
    #[track_caller]
    pub(crate) fn of(arrived: Arrived, token: TokenHash) -> Self {
        match arrived {
            Arrived::As { client, user, .. } => Self {
                client,
                user,
                token,
            },
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn new_user(name: &str) -> NewUser {
    NewUser {
        name: name.to_owned(),
        email: format!("{name}@example.com"),
    }
}

pub(crate) fn token() -> TokenHash {
    ResumeToken::random().hash()
}

/// What somebody's operation returned, or why it was refused.
pub(crate) fn settled<T>(done: store::Result<T>) -> Result<T, Refused> {
    done.map_err(|error| match error {
        StoreError::Refused(why) => why,
        other => panic!("{other:?}"),
    })
}

/// A picture whose objects have names that begin with this.
pub(crate) fn picture(hash: &str) -> StoredFile {
    StoredFile {
        file: File {
            id: FileId::random(),
            name: "cat.png".to_owned(),
            media_type: "image/png".to_owned(),
            bytes: 70,
            picture: Some(Picture {
                width: 30,
                height: 20,
                thumbnail: true,
            }),
        },
        hash: hash.to_owned(),
        thumbnail: Some(format!("{hash}.jpg")),
    }
}

// ---- coming and going ----

/// The arrival of somebody new, who becomes the spare user if there is one and no other user is free.
pub(crate) fn newcomer(node: NodeId, spare: Option<&str>) -> Arrival {
    Arrival {
        node,
        session: None,
        resume: None,
        token: token(),
        browser: None,
        spare: spare.map(new_user),
        group: None,
    }
}

/// The arrival of somebody who was this client before, and has its token.
pub(crate) fn returning(node: NodeId, client: ClientRef, token: TokenHash) -> Arrival {
    Arrival {
        resume: Some(Resume::Client(client, token)),
        ..newcomer(node, None)
    }
}

/// Somebody new arrives on a node, as the spare user of that name if no other is free.
pub(crate) async fn arrive_on(store: &Store, node: NodeId, name: &str) -> Somebody {
    let arrival = newcomer(node, Some(name));
    let token = arrival.token;
    Somebody::of(store.arrive(arrival).await.unwrap(), token)
}

pub(crate) async fn arrive(store: &Store, name: &str) -> Somebody {
    arrive_on(store, NODE, name).await
}

/// Somebody tries to come back as a client, with its token.
pub(crate) async fn come_back(store: &Store, client: ClientRef, token: TokenHash) -> Arrived {
    store.arrive(returning(NODE, client, token)).await.unwrap()
}

/// Somebody who was disconnected comes back.
pub(crate) async fn back(store: &Store, who: &Somebody) -> Somebody {
    Somebody::of(come_back(store, who.client, who.token).await, who.token)
}

/// Somebody comes back with their token alone.
pub(crate) async fn back_by_token(store: &Store, token: TokenHash) -> Somebody {
    let known = store.client_by_token(token, None).await.unwrap();
    let (client, _) = known.expect("a token that is still good");
    Somebody::of(come_back(store, client, token).await, token)
}

// ---- sessions ----

pub(crate) fn password(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

pub(crate) fn new_session(former: Option<TokenHash>) -> NewSession {
    let token = token();
    NewSession { token, former }
}

/// Somebody registers. Returns the token of their session.
pub(crate) async fn keep(store: &Store, who: &Somebody) -> TokenHash {
    let session = new_session(None);
    let kept = store.register(who.token, password("hers"), session).await;
    assert_eq!(kept.unwrap().unwrap().session.user.id, who.user.id);
    session.token
}

pub(crate) async fn sign_in(store: &Store, user: &User) -> TokenHash {
    let session = new_session(None);
    let begun = store.sign_in(user.id, password("hers"), session);
    assert_eq!(begun.await.unwrap().unwrap().session.user, *user);
    session.token
}

// ---- rooms ----

pub(crate) async fn enter(store: &Store, who: &Somebody, target: Target) -> Result<Room, Refused> {
    let entered = store.enter(who.here(), target).await;
    settled(entered).map(|(room, _)| room)
}

/// Somebody enters a room that they may enter.
pub(crate) async fn enter_room(store: &Store, who: &Somebody, target: Target) -> RoomId {
    enter(store, who, target).await.unwrap().id
}

pub(crate) async fn private(store: &Store, who: &Somebody, with: &Somebody) -> RoomId {
    enter_room(store, who, Target::Private(with.user.name.clone())).await
}

/// The group of that name.
pub(crate) async fn group(store: &Store, name: &str) -> RoomId {
    store.group(name, None).await.unwrap().unwrap().id
}

pub(crate) async fn hi(store: &Store) -> RoomId {
    group(store, "hi").await
}

pub(crate) async fn make_group(store: &Store, maker: &Somebody, name: &str) -> RoomId {
    let new = GroupName::new(name).unwrap();
    store.make_group(maker.here(), new).await.unwrap();
    group(store, name).await
}

// ---- messages ----

/// A message to be posted.
pub(crate) fn message_by(
    node: NodeId,
    author: &Somebody,
    room: RoomId,
    text: &str,
    key: Option<Uuid>,
) -> Post {
    Post {
        by: author.on(node),
        room,
        text: MessageText::new(text, 4_000).unwrap().into(),
        key,
        reply_to: None,
        files: Vec::new(),
    }
}

pub(crate) async fn try_to_post(
    store: &Store,
    author: &Somebody,
    room: RoomId,
    text: &str,
    key: Option<Uuid>,
) -> Result<Posted, Refused> {
    let message = message_by(NODE, author, room, text, key);
    settled(store.post(message).await)
}

pub(crate) async fn post(store: &Store, author: &Somebody, room: RoomId, text: &str) -> Message {
    match try_to_post(store, author, room, text, None).await {
        Ok(Posted::New(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// A text as it is stored, with its HTML.
pub(crate) fn worded(text: &str, html: &str, mentions: &[&Somebody]) -> Wording {
    Wording {
        text: MessageText::new(text, 100).unwrap(),
        html: Some(html.to_owned()),
        mentions: mentions.iter().map(|who| who.user.id).collect(),
        here: false,
    }
}

pub(crate) async fn post_worded(
    store: &Store,
    author: &Somebody,
    room: RoomId,
    text: Wording,
) -> Message {
    let post = Post {
        text,
        ..message_by(NODE, author, room, "a", None)
    };
    match store.post(post).await.unwrap() {
        Posted::New(message) => message,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn amend(
    store: &Store,
    author: &Somebody,
    room: RoomId,
    message: MessageId,
    text: Option<&str>,
) -> Result<Message, Refused> {
    let text = text.map(|text| MessageText::new(text, 4_000).unwrap().into());
    settled(store.amend(author.here(), room, message, text).await)
}

/// Whether the reaction changed anything.
pub(crate) async fn react(
    store: &Store,
    who: &Somebody,
    message: &Message,
    emoji: &str,
    on: bool,
) -> Result<bool, Refused> {
    let emoji = Emoji::new(emoji).unwrap();
    let reacted = store.react(who.here(), message.room, message.id, emoji, on);
    settled(reacted.await)
}

// ---- moderation ----

pub(crate) async fn moderate(store: &Store, by: &Somebody, action: ModeratorAction) -> Moderated {
    store.moderate(by.here(), action).await.unwrap()
}

pub(crate) fn ban_of(whom: &Somebody, on: bool) -> ModeratorAction {
    let name = whom.user.name.clone();
    ModeratorAction::Ban { name, on }
}

/// Makes somebody a moderator.
pub(crate) async fn promote(store: &Store, who: &Somebody) {
    let link = token();
    store.add_admin_link(link).await.unwrap();
    assert!(store.become_moderator(link, who.user.id).await.unwrap());
}
