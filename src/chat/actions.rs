//! One function per action, named like it. Nothing here knows how pushes reach tabs.

use uuid::Uuid;

use super::commands::{self, Addressed, Command};
use super::rooms::GROUPS_LISTED;
use super::{
    Chat, Client, MUTED, NOT_SAVED, Result, TROUBLE, has_more, log_failure, moderation, people,
};
use crate::json;
use crate::metrics::METRICS;
use crate::model::{
    BadText, DisplayName, Emoji, FileId, GroupName, Message, MessageId, MessageText, Millis, Page,
    Room, RoomId, RoomKind, Target, Topic, UserId, Wording,
};
use crate::protocol::{
    Action, Dialect, Feed, Frame, NO_SUCH_ROOM, Push, Refusal, Selector, Swap, Tone,
};
use crate::relay::News;
use crate::store::{Post, Posted, RESTRICTED, Refused, Renamed, StoreError};
use crate::views::{Completions, Place, title};

/// How many programs may ask for one name. The first gets it, the others get it with a number.
const MOST_NAMESAKES: u32 = 1000;
/// The longest search text, in characters.
const QUERY_CHARACTERS: usize = 64;
/// How many of the people who reacted to a message are listed by name.
const REACTORS: usize = 500;
/// How many completions are shown.
const COMPLETIONS: usize = 10;

const NO_SUCH_MESSAGE: &str = "This message does not exist.";
/// The same for an address, which may be that of a message of another room.
const NO_SUCH_MESSAGE_HERE: &str = "There is no such message in this room.";
const IN_AN_EDIT: &str = "Commands do not work while a message is edited. Nothing was changed. \
    To keep a text that starts with a slash, type a space first.";
const WITH_FILES: &str = "Files cannot be sent with a command. Nothing was sent.";
const NO_SUCH_FILE: &str = "A file is not available any more. Please attach it again.";
const EMPTY: &str = "The message is empty.";
const DELETED: &str = "This message was deleted.";

pub(super) async fn act(chat: &Chat, client: &Client, action: Action) -> Result<()> {
    let is_available = matches!(
        action,
        Action::Moderate(_) | Action::DeleteMessage { .. } | Action::Ping {}
    );
    if client.outbox.dialect == Dialect::Moderation && !is_available {
        chat.spend(client)?;
        return Err(Refusal::new("This action is not available on this page.").into());
    }
    match action {
        Action::Read { message, room } => {
            if let Ok(room) = meant(client, room) {
                chat.note_read(client, room, message);
            }
            return Ok(());
        }
        Action::InView { on } => {
            chat.note_in_view(client, on);
            return Ok(());
        }
        Action::NewMessage {
            text,
            to,
            key,
            reply_to,
            files,
            sender,
        } => {
            if let Err(late) = chat.spend(client) {
                // A message that is already stored is settled instead of refused.
                return match settle_known(chat, client, key).await? {
                    true => Ok(()),
                    false => Err(late),
                };
            }
            if let Some(sender) = sender {
                use_sender_name(chat, client, sender).await?;
            }
            let with = With { reply_to, files };
            return new_message(chat, client, &text, to, key, with).await;
        }
        _ => chat.spend(client)?,
    }
    match action {
        Action::ChangeGroup { target } => change_group(chat, client, &target).await,
        Action::NewGroup { name, display_name } => {
            new_group(chat, client, &name, display_name.as_deref()).await
        }
        Action::ChangeName { name } => {
            change_name(chat, client, &name).await?;
            chat.push(client, [Push::empty(Selector::NOTICE)]);
            Ok(())
        }
        Action::OpenMessage { message, room } => open_message(chat, client, message, room).await,
        Action::EditMessage {
            message,
            text,
            room,
        } => {
            // It may be meant for one person only.
            if commands::read(&text).is_some() {
                return Err(Refusal::new(IN_AN_EDIT).into());
            }
            // The store knows whether the message has files.
            let (text, room) = (checked_beside_files(chat, &text)?, meant(client, room)?);
            let text = chat.worded(client, room, text).await?;
            amend_message(chat, client, message, Some(text), Some(room)).await
        }
        Action::DeleteMessage { message, room } => {
            amend_message(chat, client, message, None, room).await?;
            moderation::deleted(chat, client, message, room).await
        }
        Action::React {
            message,
            emoji,
            on,
            room,
            form,
        } => {
            react(chat, client, message, &emoji, on, room).await?;
            if form {
                // The notice about an invalid emoji is out of date.
                let places = [Selector::MESSAGE_FORM, Selector::NOTICE];
                chat.push(client, places.map(Push::empty));
            }
            Ok(())
        }
        Action::OlderMessages { before, room } => older_messages(chat, client, before, room).await,
        Action::NewerMessages {
            after,
            before,
            room,
        } => newer_messages(chat, client, after, before, room).await,
        Action::ShowMessages { at, since, room } => {
            show_messages(chat, client, at, since.map(Millis), room).await
        }
        Action::MarkUnread { message, room } => {
            let room = meant(client, room)?;
            chat.mark_unread(client, room, message).await?;
            chat.push(client, [Push::empty(Selector::MESSAGE_FORM)]);
            Ok(())
        }
        Action::MarkAllAsRead {} => chat.read_all(client).await,
        Action::LeaveGroup { room } => leave_group(chat, client, room).await,
        Action::MuteGroup { room, on } => {
            let room = meant(client, room)?;
            chat.store.mute_group(chat.actor(client), room, on).await?;
            chat.spread(News::Groups(client.user.id));
            show_menu_again(chat, client, room).await
        }
        Action::ChangeTopic { room, topic } => change_topic(chat, client, room, &topic).await,
        Action::SetNotifications { change } => {
            let by = chat.actor(client);
            chat.store.change_notifications(by, change).await?;
            chat.spread(News::Notifications(client.user.id));
            Ok(())
        }
        Action::Subscribe { subscription } => chat.subscribe(client, subscription).await,
        Action::Typing { room } => typing(chat, client, room).await,
        Action::FindPeople { text } => find_people(chat, client, &text).await,
        Action::FindGroups { text } => find_groups(chat, client, &text).await,
        Action::FindRooms { text } => find_rooms(chat, client, &text).await,
        Action::Search { text, before } => chat.search(client, &text, before).await,
        Action::Moderate(action) => moderation::act(chat, client, action).await,
        Action::Complete { text } => complete(chat, client, text.trim()).await,
        _ => {
            chat.push(client, [chat.views.connection()?]);
            Ok(())
        }
    }
}

pub(super) async fn change_group(chat: &Chat, client: &Client, target: &Target) -> Result<()> {
    match chat.visit(client, target, None, None).await? {
        true => Ok(()),
        false => Err(no_such_room(target, client).into()),
    }
}

async fn new_group(
    chat: &Chat,
    client: &Client,
    name: &str,
    display_name: Option<&str>,
) -> Result<()> {
    let name = GroupName::new(name).map_err(|bad| Refusal::new(bad.to_string()))?;
    // An empty field here means that the name stays.
    if let Some(display_name) = display_name.filter(|name| !name.trim().is_empty()) {
        change_name(chat, client, display_name).await?;
    }
    let target = Target::Group(name.as_str().to_owned());
    chat.store.make_group(chat.actor(client), name).await?;
    chat.spread(News::Presence(RoomId::LOBBY));
    // The group exists: clear the offer to create it, and the form.
    chat.push(client, [Push::empty(Selector::NOTICE)]);
    chat.push(client, [chat.views.new_group()?]);
    change_group(chat, client, &target).await
}

async fn change_name(chat: &Chat, client: &Client, name: &str) -> Result<()> {
    let name = match name.trim().is_empty() {
        true => None,
        false => Some(display_name(name)?),
    };
    rename(chat, client, name, 1).await
}

/// Sets the display name that a program asks for, with a number added if it is taken. A request that
/// was granted is not evaluated again.
async fn use_sender_name(chat: &Chat, client: &Client, wish: String) -> Result<()> {
    let granted = || client.wish.lock();
    if wish.trim().is_empty() || granted().as_deref() == Some(&wish) {
        return Ok(());
    }
    let name = display_name(&wish)?;
    rename(chat, client, Some(name), MOST_NAMESAKES).await?;
    *granted() = Some(wish);
    Ok(())
}

fn display_name(text: &str) -> Result<DisplayName> {
    DisplayName::new(text).map_err(|bad| Refusal::new(bad.to_string()).into())
}

async fn rename(
    chat: &Chat,
    client: &Client,
    name: Option<DisplayName>,
    namesakes: u32,
) -> Result<()> {
    let wanted = name.clone();
    let wanted = wanted.as_ref().map_or("", DisplayName::as_str);
    let renamed = chat.store.rename(chat.actor(client), name, namesakes);
    let Renamed {
        user,
        former,
        rooms,
    } = match renamed.await {
        Err(StoreError::Refused(Refused::NameTaken)) => {
            return Err(Refusal::new(format!(
                "The name “{wanted}” is taken, or is too similar to somebody else's name."
            ))
            .into());
        }
        renamed => renamed?,
    };
    chat.spread(News::Renamed { user, rooms });
    former.into_iter().for_each(|user| chat.moved(user));
    Ok(())
}

/// The refusal for a room that cannot be entered.
pub(super) fn no_such_room(target: &Target, me: &Client) -> Refusal {
    match target {
        Target::Group(name) => no_such_group(name),
        Target::Private(name) if name.to_lowercase() == me.user.name => {
            Refusal::new(match me.outbox.is_kept() {
                true => "That is you.",
                false => "That is you. Open a second tab to try a conversation.",
            })
        }
        Target::Private(name) => {
            Refusal::new(format!("There is nobody named “{}”.", shortened(name)))
        }
        Target::Room(_) => Refusal::new(NO_SUCH_ROOM),
    }
}

/// The refusal for an address that names a message which is not in its room.
pub(super) fn no_such_message() -> Refusal {
    Refusal::new(NO_SUCH_MESSAGE_HERE)
}

/// The refusal for a group that does not exist, with the offer to create it where that is allowed.
pub(super) fn no_such_group(name: &str) -> Refusal {
    let refusal = Refusal::new(format!("There is no group #{}.", shortened(name)));
    refusal.offering(GroupName::new(name).ok())
}

fn shortened(name: &str) -> String {
    name.chars().take(QUERY_CHARACTERS).collect()
}

/// What goes with the text of a new message.
#[derive(Default)]
struct With {
    reply_to: Option<MessageId>,
    files: Vec<FileId>,
}

async fn new_message(
    chat: &Chat,
    client: &Client,
    text: &str,
    to: Option<Target>,
    key: Option<Uuid>,
    with: With,
) -> Result<()> {
    match commands::read(text) {
        None => {
            let room = match to {
                None => meant(client, None)?,
                Some(Target::Room(room)) => room,
                // What the name stood for then may be gone.
                Some(_) if settle_known(chat, client, key).await? => return Ok(()),
                Some(target) => named(chat, client, &target).await?.id,
            };
            post(chat, client, text, room, key, with).await.map(|_| ())
        }
        Some(_) if !with.files.is_empty() => Err(Refusal::new(WITH_FILES).into()),
        Some(Command::Help) => {
            settle_unseen(chat, client, key)?;
            chat.say(client, &Refusal::new(commands::HELP), Tone::Done)
        }
        Some(Command::Private(to)) => private_message(chat, client, &to, key).await,
        Some(Command::Unknown(word)) => Err(Refusal::new(format!(
            "Unknown command /{}. Nothing was sent. Type /help for a list of commands.",
            shortened(word)
        ))
        .into()),
    }
}

/// `/pm`: posts into the private room with that person, from any room.
async fn private_message(
    chat: &Chat,
    client: &Client,
    to: &Addressed<'_>,
    key: Option<Uuid>,
) -> Result<()> {
    // Names may have changed owners. A message sent under this key stays where it was sent.
    if settle_known(chat, client, key).await? {
        return Ok(());
    }
    let words = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ");
    let names = to.ways.iter().map(|(name, _)| words(name)).collect();
    let found = chat.store.find_person(names).await?;
    let way = found.as_ref().and_then(|(way, _)| to.ways.get(*way));
    let (name, text) = way.copied().unwrap_or(to.first);
    if name.is_empty() || text.is_empty() {
        let words = "Nothing was sent. Use: /pm name message, for example /pm brenda82 hello";
        return Err(Refusal::new(words).into());
    }
    let name = found.map_or_else(|| name.to_owned(), |(_, user)| user.name);
    let room = named(chat, client, &Target::Private(name)).await?;
    if post(chat, client, text, room.id, key, With::default()).await? {
        let to = title(&room);
        match client.outbox.dialect {
            Dialect::Objects => {
                let receipt = json::private_message_delivered(&to, text);
                client.outbox.push([receipt]);
            }
            _ => chat.say(client, &sent_to(&room), Tone::Done)?,
        }
    }
    Ok(())
}

/// The room of that name, which the client does not enter. Two people who have none get theirs.
async fn named(chat: &Chat, client: &Client, target: &Target) -> Result<Room> {
    let room = match target {
        Target::Group(name) => chat.store.group(name, Some(client.user.id)).await?,
        Target::Private(name) => match chat.store.private_room(chat.actor(client), name).await {
            Err(StoreError::Refused(_)) => None,
            room => Some(room?),
        },
        Target::Room(_) => None,
    };
    room.ok_or_else(|| no_such_room(target, client).into())
}

fn sent_to(room: &Room) -> Refusal {
    Refusal::new(format!("Sent privately to {}.", title(room)))
}

/// Settles a key if its message is already stored. Returns whether it is.
async fn settle_known(chat: &Chat, client: &Client, key: Option<Uuid>) -> Result<bool> {
    let Some(key) = key else { return Ok(false) };
    let Some((message, room)) = chat.store.message_by_key(client.user.id, key).await? else {
        return Ok(false);
    };
    settle(chat, client, &message).await?;
    let elsewhere = client.outbox.place().is_none_or(|at| at.room != room.id);
    if elsewhere && matches!(room.kind, RoomKind::Private { .. }) {
        chat.say(client, &sent_to(&room), Tone::Done)?;
    }
    Ok(true)
}

/// Settles a key without showing anything.
fn settle_unseen(chat: &Chat, client: &Client, key: Option<Uuid>) -> Result<()> {
    if let Some(key) = key {
        chat.push(client, [chat.views.settled(key)?]);
    }
    Ok(())
}

/// Shows a message in place of its pending copy, since no ordered push of it will.
async fn settle(chat: &Chat, client: &Client, message: &Message) -> Result<()> {
    if message.key.is_some() && client.outbox.dialect.feed() == Feed::Changes {
        chat.push(client, [chat.views.changed_message(message)]);
        // The message may be on the page already, in a newer version than this one.
        let (room, id) = (message.room, message.id);
        change_again(chat, client, room, id, id, message.changed).await?;
    }
    Ok(())
}

/// Stores a message and settles its key. Returns whether it is stored.
async fn post(
    chat: &Chat,
    client: &Client,
    text: &str,
    room: RoomId,
    key: Option<Uuid>,
    with: With,
) -> Result<bool> {
    let With { reply_to, files } = with;
    let text = match files.is_empty() {
        true => checked(chat, text)?,
        false => checked_beside_files(chat, text)?,
    };
    let by = chat.actor(client);
    let posted = match chat.worded(client, room, text).await {
        Ok(text) => {
            let post = Post {
                by,
                room,
                text,
                key,
                reply_to,
                files,
            };
            client.queue(chat.store.post(post)).await
        }
        Err(error) => Err(error),
    };
    chat.stops_typing(room, &client.user);
    if let Ok(Posted::New(message)) = &posted
        && client.outbox.place().is_some_and(|at| at.room == room)
    {
        // After posting, the tab is scrolled to the end, so everything is read.
        chat.note_read(client, room, message.id);
    }
    let message = match posted {
        Ok(Posted::New(message)) if client.outbox.expect(&message) => return Ok(true),
        Ok(Posted::New(message) | Posted::Known(message)) => message,
        Ok(Posted::Settled) => {
            settle_unseen(chat, client, key)?;
            return Ok(false);
        }
        Err(StoreError::Refused(why)) => return Err(refusal(why).into()),
        Err(StoreError::Gone) => return Err(StoreError::Gone.into()),
        Err(error) => {
            // The tab still has the text, and sends it again by itself.
            METRICS.refused("unavailable");
            let what = format_args!("store a message of user {}", client.user.id.0);
            log_failure(what, &error);
            let words = match client.outbox.dialect.feed() {
                Feed::Changes => NOT_SAVED,
                _ => TROUBLE,
            };
            chat.say(client, &Refusal::new(words), Tone::Trouble)?;
            return Ok(false);
        }
    };
    settle(chat, client, &message).await?;
    Ok(true)
}

/// The text of a message, or the reason why it is refused.
fn checked(chat: &Chat, text: &str) -> std::result::Result<MessageText, Refusal> {
    let limit = chat.limits.message_characters;
    MessageText::new(text, limit).map_err(|bad| match bad {
        BadText::Empty => Refusal::new(EMPTY),
        BadText::TooLong { characters } => Refusal::new(format!(
            "The message has {characters} characters. The limit is {limit}."
        )),
    })
}

/// The same for a message with files, which needs no text.
fn checked_beside_files(chat: &Chat, text: &str) -> std::result::Result<MessageText, Refusal> {
    match text.trim().is_empty() {
        true => Ok(MessageText::none()),
        false => checked(chat, text),
    }
}

/// The room that an action names, otherwise the room of the tab.
fn meant(client: &Client, room: Option<RoomId>) -> Result<RoomId> {
    room.or(client.outbox.place().map(|place| place.room))
        .ok_or_else(|| Refusal::new(NO_SUCH_ROOM).into())
}

async fn open_message(
    chat: &Chat,
    client: &Client,
    message: MessageId,
    room: Option<RoomId>,
) -> Result<()> {
    let (room, me) = (meant(client, room)?, client.user.id);
    let opened = chat.store.open_message(me, room, message, REACTORS).await?;
    let Some((message, reactors)) = opened else {
        return Err(Refusal::new(NO_SUCH_MESSAGE).into());
    };
    if message.deleted {
        return Err(Refusal::new(DELETED).into());
    }
    if client.outbox.dialect.has(&Selector::MESSAGE_FORM) {
        let own = message.author.id == me;
        let limit = own.then_some(chat.limits.message_characters);
        // Moderators have no rights in private rooms.
        let may_delete = own
            || chat.store.pair(room).await?.is_none() && chat.store.standing(me).await?.moderator;
        let views = &chat.views;
        let form = views.message_form(&message, &reactors, limit, may_delete)?;
        chat.push(client, [form]);
    }
    Ok(())
}

async fn react(
    chat: &Chat,
    client: &Client,
    message: MessageId,
    emoji: &str,
    on: bool,
    room: Option<RoomId>,
) -> Result<()> {
    let Some(emoji) = Emoji::new(emoji) else {
        let words = "Enter an emoji, such as 🎉, or its name, such as :tada:.";
        return Err(Refusal::new(words).into());
    };
    let (by, room) = (chat.actor(client), meant(client, room)?);
    // The tab is updated in order, together with the change.
    chat.store.react(by, room, message, emoji, on).await?;
    Ok(())
}

async fn amend_message(
    chat: &Chat,
    client: &Client,
    message: MessageId,
    text: Option<Wording>,
    room: Option<RoomId>,
) -> Result<()> {
    let (by, room) = (chat.actor(client), meant(client, room)?);
    let is_deletion = text.is_none();
    let amended = chat.store.amend(by, room, message, text).await?;
    if is_deletion && amended.author.id != by.user {
        let author = &amended.author.user_name;
        let words = format!("deleted message {} of {author} in room {room}", message.0);
        moderation::log_done(&client.user, &words);
    }
    chat.push(client, [Push::empty(Selector::MESSAGE_FORM)]);
    Ok(())
}

/// What a person is shown when the store refuses an operation.
pub(super) fn refusal(why: Refused) -> Refusal {
    Refusal::new(match why {
        Refused::NoSuchRoom | Refused::Oneself => NO_SUCH_ROOM,
        Refused::NoSuchMessage => NO_SUCH_MESSAGE,
        Refused::NoSuchFile => NO_SUCH_FILE,
        Refused::NotYours => "You can only change your own messages.",
        Refused::Deleted => DELETED,
        Refused::Empty => EMPTY,
        Refused::NotMaker => "Only the group's creator and moderators can change its topic.",
        Refused::TooManyEmojis => {
            "This message already has the maximum number of different reactions."
        }
        Refused::NameTaken => "This name is taken, or is too similar to somebody else's name.",
        Refused::Muted => MUTED,
    })
}

/// The room of the tab, if that is the one that an action means and the tab can show parts of it.
fn paged_room(client: &Client, room: Option<RoomId>) -> Option<RoomId> {
    let here = client.outbox.place()?.room;
    let elsewhere =
        [RoomId::LOBBY, RoomId::SEARCH].contains(&here) || room.is_some_and(|room| room != here);
    (!elsewhere && client.outbox.dialect.has(&Selector::MESSAGES_OLDER)).then_some(here)
}

async fn older_messages(
    chat: &Chat,
    client: &Client,
    before: MessageId,
    room: Option<RoomId>,
) -> Result<()> {
    let Some(here) = paged_room(client, room) else {
        return Ok(());
    };
    let page = chat.store.older(here, before).await?;
    let pushes = chat.views.older_messages(&page)?;
    show_page(chat, client, here, &page, pushes.into()).await
}

async fn newer_messages(
    chat: &Chat,
    client: &Client,
    after: MessageId,
    before: Option<MessageId>,
    room: Option<RoomId>,
) -> Result<()> {
    let Some(here) = paged_room(client, room) else {
        return Ok(());
    };
    let page = chat.store.newer(here, after, before).await?;
    let pushes = chat.views.newer_messages(&page)?;
    show_page(chat, client, here, &page, pushes).await
}

/// Shows the messages around a place instead of those on show.
async fn show_messages(
    chat: &Chat,
    client: &Client,
    at: Option<MessageId>,
    since: Option<Millis>,
    room: Option<RoomId>,
) -> Result<()> {
    let Some(here) = paged_room(client, room) else {
        return Ok(());
    };
    let place = match (at, since) {
        (Some(at), _) => Some(Place::At(at)),
        (None, Some(since)) => {
            let last = chat.store.last_before(here, since).await?;
            Some(Place::After(last.unwrap_or(MessageId(0))))
        }
        (None, None) => None,
    };
    let page = chat.show_part(client, here, place).await?;
    show_page(chat, client, here, &page, Vec::new()).await
}

/// Shows a page of messages to somebody who shows another part of the room, with their reactions.
async fn show_page(
    chat: &Chat,
    client: &Client,
    here: RoomId,
    page: &Page,
    pushes: Vec<Push>,
) -> Result<()> {
    let ends = page.messages.first().zip(page.messages.last());
    if let Some((first, last)) = ends {
        let (me, first, last) = (client.user.id, first.id, last.id);
        let mine = chat.reactions_among(me, here, first, last).await?;
        if !mine.is_empty() {
            let mine = chat.views.my_reactions(&mine)?.swapped(Swap::Append);
            chat.push(client, [mine]);
        }
    }
    chat.push(client, pushes);
    if let Some((first, last)) = ends {
        change_again(chat, client, here, first.id, last.id, page.version.number).await?;
    }
    Ok(())
}

/// Repeats the pushes for messages that changed after they were read from the store. The original
/// pushes may have arrived before the messages did. Stops when the messages are as new as the tab's
/// room.
async fn change_again(
    chat: &Chat,
    client: &Client,
    room: RoomId,
    first: MessageId,
    last: MessageId,
    mut read_at: u64,
) -> Result<()> {
    let seen = || {
        let place = client.outbox.place().filter(|place| place.room == room)?;
        place.seen
    };
    while seen().is_some_and(|seen| seen.number > read_at) {
        let page = chat.store.changed_among(room, first, last, read_at).await?;
        let since = std::mem::replace(&mut read_at, page.version.number);
        let again = page.messages.iter();
        let again = again.flat_map(|message| chat.views.current(message, since));
        chat.push(client, again);
    }
    Ok(())
}

/// The group leaves the person's list. Tabs that show it go to the lobby.
async fn leave_group(chat: &Chat, client: &Client, room: Option<RoomId>) -> Result<()> {
    let room = meant(client, room)?;
    chat.store.leave_group(chat.actor(client), room).await?;
    if client
        .outbox
        .place()
        .is_some_and(|place| place.room == room)
    {
        chat.show_lobby_instead(client).await?;
    }
    chat.spread(News::Groups(client.user.id));
    Ok(())
}

async fn change_topic(
    chat: &Chat,
    client: &Client,
    room: Option<RoomId>,
    topic: &str,
) -> Result<()> {
    let room = meant(client, room)?;
    let topic = Topic::new(topic).map_err(|characters| {
        Refusal::new(format!(
            "The topic has {characters} characters. The limit is {}.",
            Topic::CHARACTERS
        ))
    })?;
    chat.store
        .set_topic(chat.actor(client), room, topic)
        .await?;
    chat.spread(News::Presence(room));
    chat.spread(News::Presence(RoomId::LOBBY));
    show_menu_again(chat, client, room).await
}

/// Shows what the person can do with their room, after one of these things has changed there.
async fn show_menu_again(chat: &Chat, client: &Client, room: RoomId) -> Result<()> {
    let place = client.outbox.place();
    if place.is_some_and(|place| place.room == room)
        && let Some(room) = chat.group(room).await?
    {
        client.outbox.push([chat.room_menu(client, &room).await?]);
    }
    Ok(())
}

async fn typing(chat: &Chat, client: &Client, room: Option<RoomId>) -> Result<()> {
    let here = client.outbox.place().map(|place| place.room);
    if let Some(here) = here.filter(|here| room.is_none_or(|room| room == *here))
        && !chat.store.standing(client.user.id).await?.muted
    {
        chat.starts_typing(here, &client.user);
    }
    Ok(())
}

async fn find_people(chat: &Chat, client: &Client, text: &str) -> Result<()> {
    if !client.outbox.dialect.has(&Selector::USERS_FOUND) {
        return Ok(());
    }
    let query = shortened(text.trim().trim_start_matches('@'));
    let mut found = match query.is_empty() {
        true => Vec::new(),
        // One extra shows whether there are more; another replaces the searcher, who is left out.
        false => chat.store.find_people(&query, people::LISTED + 2).await?,
    };
    found.retain(|person| person.user.id != client.user.id);
    let more = has_more(&mut found, people::LISTED);
    chat.push(client, [chat.views.users_found(&query, &found, more)?]);
    Ok(())
}

/// Completes the word that somebody is typing: the name of a person, of a group or of an emoji.
async fn complete(chat: &Chat, client: &Client, text: &str) -> Result<()> {
    if !client.outbox.dialect.has(&Selector::COMPLETIONS) {
        return Ok(());
    }
    let me = client.user.id;
    let found = if let Some(beginning) = text.strip_prefix('#') {
        Completions::Groups(groups_to_name(chat, me, &shortened(beginning)).await?)
    } else if let Some(beginning) = text.strip_prefix(':') {
        Completions::Emojis(Emoji::with_code(beginning, COMPLETIONS))
    } else {
        let beginning = text.strip_prefix('@').unwrap_or(text);
        let room = client
            .outbox
            .place()
            .map_or(RoomId::LOBBY, |place| place.room);
        let store = &chat.store;
        let people = match text.is_empty() {
            true => Vec::new(),
            false => {
                let beginning = shortened(beginning);
                store
                    .people_to_mention(me, room, &beginning, COMPLETIONS)
                    .await?
            }
        };
        let is_start = text.starts_with('@') && "here".starts_with(beginning);
        let here = is_start && chat.group(room).await?.is_some();
        Completions::People(people, here)
    };
    chat.push(client, [chat.views.completions(text, &found)?]);
    Ok(())
}

/// The groups and people whose names begin with a text. Without a text, those in the person's lists.
async fn find_rooms(chat: &Chat, client: &Client, text: &str) -> Result<()> {
    if !client.outbox.dialect.has(&Selector::ROOMS_FOUND) {
        return Ok(());
    }
    let query = shortened(text.trim().trim_start_matches(['#', '@']));
    let me = client.user.id;
    let (groups, mut people): (Vec<_>, _) = match query.is_empty() {
        true => {
            let groups = chat.store.groups(Some(me), people::LISTED).await?;
            let groups = groups.into_iter().map(|listed| listed.group).collect();
            (groups, chat.store.people_of(me, people::LISTED).await?)
        }
        false => {
            let groups = chat.store.find_groups(&query, people::LISTED).await?;
            let groups = groups.into_iter().map(|busy| busy.group).collect();
            let found = chat.store.find_people(&query, people::LISTED).await?;
            (groups, found)
        }
    };
    people.retain(|person| person.user.id != me);
    chat.push(client, [chat.views.rooms_found(&query, &groups, &people)?]);
    Ok(())
}

/// The groups that a person can name whose names begin with this text, their own first.
async fn groups_to_name(chat: &Chat, me: UserId, beginning: &str) -> Result<Vec<Room>> {
    let key = GroupName::key_of(beginning);
    let listed = chat.store.groups(Some(me), GROUPS_LISTED).await?;
    let mine = listed.into_iter().map(|listed| listed.group);
    let found = match beginning.is_empty() {
        true => Vec::new(),
        false => chat.store.find_groups(beginning, COMPLETIONS).await?,
    };
    let mut groups: Vec<Room> = Vec::new();
    for room in mine.chain(found.into_iter().map(|busy| busy.group)) {
        // Restricted groups have names that nobody can type.
        let fits = matches!(&room.kind, RoomKind::Group(name)
            if !name.starts_with(RESTRICTED) && GroupName::key_of(name).starts_with(&key));
        if fits && !groups.contains(&room) {
            groups.push(room);
        }
    }
    groups.truncate(COMPLETIONS);
    Ok(groups)
}

async fn find_groups(chat: &Chat, client: &Client, text: &str) -> Result<()> {
    if !client.outbox.dialect.has(&Selector::LOBBY_FOUND) {
        return Ok(());
    }
    let query = shortened(text.trim().trim_start_matches('#'));
    let found = found_groups(chat, &query).await?;
    let is_open = !query.is_empty();
    *client.sought.lock() = is_open.then(|| Box::new((query, found.clone())));
    client.outbox.push([found]);
    Ok(())
}

/// A group was renamed, or its access changed. Repeats the open search and pushes the result if it
/// differs.
pub(super) async fn find_groups_again(chat: &Chat, client: &Client) -> Result<()> {
    let sought = client.sought.lock().clone();
    let Some((query, shown)) = sought.map(|sought| *sought) else {
        return Ok(());
    };
    let found = found_groups(chat, &query).await?;
    if !found.payloads().eq(shown.payloads()) {
        *client.sought.lock() = Some(Box::new((query, found.clone())));
        client.outbox.push([found]);
    }
    Ok(())
}

async fn found_groups(chat: &Chat, query: &str) -> Result<Frame> {
    let mut found = match query.is_empty() {
        true => Vec::new(),
        false => chat.store.find_groups(query, people::LISTED + 1).await?,
    };
    let more = has_more(&mut found, people::LISTED);
    // A group of exactly that name is the first of those found.
    let is_new = |name: &GroupName| {
        !found.iter().any(|busy| matches!(&busy.group.kind, RoomKind::Group(known) if GroupName::key_of(known) == name.key()))
    };
    let offer = GroupName::new(query).ok().filter(is_new);
    let found = chat
        .views
        .lobby_found(query, &found, more, offer.as_ref())?;
    Ok(found.encode())
}
