//! What people do in a store, for all the tests that have people in it.

use overwire::model::{
    ClientRef, Emoji, GroupName, Message, MessageId, MessageText, NewUser, NodeId, PasswordHash,
    ResumeToken, RoomId, Target, TokenHash, User,
};
use overwire::moderation::{Moderated, Moderation};
use overwire::protocol::ModeratorAction;
use overwire::store::{
    Amend, Amended, Arrival, Arrived, Entered, NewSession, Post, Posted, React, Reacted, Store,
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

// ---- coming and going ----

/// The arrival of somebody new, who becomes the spare user if there is one and no other user is free.
pub(crate) fn newcomer(node: NodeId, spare: Option<&str>) -> Arrival {
    Arrival {
        node,
        session: None,
        resume: None,
        token: token(),
        spare: spare.map(new_user),
    }
}

/// The arrival of somebody who was this client before, and has its token.
pub(crate) fn returning(node: NodeId, client: ClientRef, token: TokenHash) -> Arrival {
    Arrival {
        resume: Some(client),
        token,
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

pub(crate) async fn enter(store: &Store, who: &Somebody, target: Target) -> Entered {
    let entered = store.enter(who.client, who.user.id, target).await;
    entered.unwrap().0
}

/// Somebody enters a room that they may enter.
pub(crate) async fn enter_room(store: &Store, who: &Somebody, target: Target) -> RoomId {
    match enter(store, who, target).await {
        Entered::Room(room) => room.id,
        refused => panic!("{refused:?}"),
    }
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
    let made = store.make_group(maker.client, maker.user.id, new);
    assert!(made.await.unwrap());
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
        node,
        client: author.client,
        author: author.user.id,
        room,
        text: MessageText::new(text, 100).unwrap(),
        key,
    }
}

pub(crate) async fn try_to_post(
    store: &Store,
    author: &Somebody,
    room: RoomId,
    text: &str,
    key: Option<Uuid>,
) -> Posted {
    let message = message_by(NODE, author, room, text, key);
    store.post(message).await.unwrap()
}

pub(crate) async fn post(store: &Store, author: &Somebody, room: RoomId, text: &str) -> Message {
    match try_to_post(store, author, room, text, None).await {
        Posted::New(message) => message,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn amendment(
    author: &Somebody,
    room: RoomId,
    message: MessageId,
    text: Option<&str>,
) -> Amend {
    Amend {
        node: NODE,
        client: author.client,
        author: author.user.id,
        room,
        message,
        text: text.map(|text| MessageText::new(text, 100).unwrap()),
    }
}

pub(crate) async fn amend(
    store: &Store,
    author: &Somebody,
    room: RoomId,
    message: MessageId,
    text: Option<&str>,
) -> Amended {
    let amendment = amendment(author, room, message, text);
    store.amend(amendment).await.unwrap()
}

pub(crate) fn reaction_by(
    who: &Somebody,
    room: RoomId,
    message: MessageId,
    emoji: &str,
    on: bool,
) -> React {
    React {
        node: NODE,
        client: who.client,
        user: who.user.id,
        room,
        message,
        emoji: Emoji::new(emoji).unwrap(),
        on,
    }
}

pub(crate) async fn react(
    store: &Store,
    who: &Somebody,
    message: &Message,
    emoji: &str,
    on: bool,
) -> Reacted {
    let reaction = reaction_by(who, message.room, message.id, emoji, on);
    store.react(reaction).await.unwrap()
}

// ---- moderation ----

/// What a moderator on a node asks for.
pub(crate) fn moderation(node: NodeId, by: &Somebody, action: ModeratorAction) -> Moderation {
    Moderation {
        node,
        client: by.client,
        by: by.user.id,
        action,
    }
}

pub(crate) async fn moderate(store: &Store, by: &Somebody, action: ModeratorAction) -> Moderated {
    let moderation = moderation(NODE, by, action);
    store.moderate(moderation).await.unwrap()
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
