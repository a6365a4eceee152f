//! The searches and actions of moderators, and their effect on people online. This module does not know
//! how anybody becomes a moderator.

use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Chat, Client, Denied, MUTED, Result, has_more, log_failure};
use crate::hub::{Close, Outbox, Region};
use crate::model::{MessageId, Millis, ResumeToken, Room, RoomId, RoomKind, Target, User, UserId};
use crate::moderation::{FoundMessages, Moderated, Search};
use crate::protocol::{Dialect, Frame, Moderate, ModeratorAction, Push, Refusal, Selector, Tone};
use crate::relay::News;
use crate::store::RESTRICTED;

/// How many groups, people or audit log entries are shown at once.
const RECORDS: usize = 25;
/// The longest search text, in characters.
const SEARCH_CHARACTERS: usize = 200;
/// The longest time that entering a room can take.
const ENTERING: Duration = Duration::from_secs(60);
/// How many tabs update their list of groups at once, and the pause after that: 5,000 tabs a second,
/// each of which costs a fraction of a millisecond.
const OUTDATED_AT_ONCE: usize = 100;
const OUTDATED_EVERY: Duration = Duration::from_millis(20);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const NOT_ALLOWED: &str = "Only moderators can do that.";
const NOTHING: &str = "Not found. It may have been removed.";
const BANNED: &str = "A moderator has banned you.";
const PASSWORD_LINK: &str = "A moderator has created a link to reset your password.";
const UNMUTED: &str = "A moderator has unmuted you.";

/// The tab reconnects, and is admitted where it still may be.
const GROUP_CHANGED: Close = Close::drained(1000, "the group has changed");

/// The groups that have changed recently, so that some people may no longer be in them.
#[derive(Default)]
pub(super) struct Changed(Mutex<Vec<(Instant, RoomId)>>);

impl Changed {
    fn add(&self, room: RoomId) {
        let mut changed = self.0.lock();
        changed.retain(|(at, _)| at.elapsed() <= ENTERING);
        changed.push((Instant::now(), room));
    }

    fn has(&self, room: RoomId) -> bool {
        let changed = self.0.lock();
        let mut recent = changed.iter().filter(|(at, _)| at.elapsed() <= ENTERING);
        recent.any(|(_, other)| *other == room)
    }
}

pub(super) async fn act(chat: &Chat, client: &Client, action: Moderate) -> Result<()> {
    // A former moderator finds nothing. An action checks this again in its transaction.
    if client.outbox.dialect != Dialect::Moderation || !is_moderator(chat, client).await? {
        return Err(Refusal::new(NOT_ALLOWED).into());
    }
    match action {
        Moderate::LookForGroups { text, after } => {
            look_for_groups(chat, client, &text, &after).await
        }
        Moderate::LookForPeople { text, after } => {
            look_for_people(chat, client, &text, &after).await
        }
        Moderate::OpenGroup { room } => open_group(chat, client, room).await,
        Moderate::LookForMessages {
            room,
            author,
            words,
            from,
            until,
            before,
        } => {
            let author = author.trim().trim_start_matches('@');
            let search = Search {
                room,
                author: (!author.is_empty()).then(|| author.to_owned()),
                words: words.chars().take(SEARCH_CHARACTERS).collect(),
                from: day(&from)?,
                until: day(&until)?.map(|day| day.after(DAY)),
                before: before.unwrap_or(MessageId(i64::MAX)),
            };
            let found = chat.store.message_records(search.clone()).await?;
            let views = &chat.views;
            chat.push(
                client,
                [views.moderation_found(&search, &from, &until, &found)?],
            );
            Ok(())
        }
        Moderate::ShowAuditLog { before } => {
            chat.push(client, [log(chat, before).await?]);
            Ok(())
        }
        Moderate::Do(action) => moderate(chat, client, action).await,
    }
}

/// Takes an action, and shows its target as it is now.
async fn moderate(chat: &Chat, client: &Client, action: ModeratorAction) -> Result<()> {
    let done = done(chat, client, action.clone()).await?;
    match action {
        ModeratorAction::RenameGroup { room, .. }
        | ModeratorAction::RemoveGroup { room }
        | ModeratorAction::RestrictGroup { room, .. } => {
            if done.is_some() {
                chat.tell_others(News::GroupChanged(room));
                chat.take_group_change(room).await;
                chat.spread(News::Presence(RoomId::LOBBY));
            }
            let group = chat.store.group_record(room).await?;
            chat.push(client, [chat.views.moderation_group(room, group.as_ref())?]);
            Ok(())
        }
        ModeratorAction::RestoreMessage { message, room } => {
            show_message(chat, client, message, room).await
        }
        ModeratorAction::Mute { name, on } => {
            if let Some(Some(user)) = done {
                tell_all(chat, user, if on { MUTED } else { UNMUTED })?;
            }
            show_person(chat, client, &name).await
        }
        ModeratorAction::Ban { name, on } => {
            if let (Some(Some(user)), true) = (done, on) {
                chat.take_ban(user);
                chat.tell_others(News::Banned(user));
            }
            show_person(chat, client, &name).await
        }
    }
}

async fn is_moderator(chat: &Chat, client: &Client) -> Result<bool> {
    Ok(chat.store.standing(client.user.id).await?.moderator)
}

/// The start of a day in UTC, from the value of a date field.
fn day(text: &str) -> std::result::Result<Option<Millis>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let day = Millis::of_day(text);
    day.map(Some)
        .ok_or_else(|| Refusal::new("Write the date like 2026-11-21."))
}

async fn look_for_groups(chat: &Chat, client: &Client, text: &str, after: &str) -> Result<()> {
    let text = text.trim().trim_start_matches('#');
    let mut groups = chat.store.group_records(text, after, RECORDS + 1).await?;
    let more = has_more(&mut groups, RECORDS);
    let is_first = after.is_empty();
    let found = chat
        .views
        .moderation_groups(text, is_first, &groups, more)?;
    chat.push(client, [found]);
    Ok(())
}

async fn look_for_people(chat: &Chat, client: &Client, text: &str, after: &str) -> Result<()> {
    let text = text.trim().trim_start_matches('@');
    let mut people = chat.store.person_records(text, after, RECORDS + 1).await?;
    let more = has_more(&mut people, RECORDS);
    let is_first = after.is_empty();
    let found = chat
        .views
        .moderation_people(text, is_first, &people, more)?;
    chat.push(client, [found]);
    Ok(())
}

async fn open_group(chat: &Chat, client: &Client, room: RoomId) -> Result<()> {
    let Some(group) = chat.store.group_record(room).await? else {
        return Err(Refusal::new(NOTHING).into());
    };
    let found = chat.store.message_records(newest(room)).await?;
    chat.push(client, [chat.views.moderation_messages(&group, &found)?]);
    Ok(())
}

fn newest(room: RoomId) -> Search {
    Search {
        room,
        author: None,
        words: String::new(),
        from: None,
        until: None,
        before: MessageId(i64::MAX),
    }
}

async fn log(chat: &Chat, before: Option<i64>) -> Result<Push> {
    let before = before.unwrap_or(i64::MAX);
    let mut entries = chat.store.audit_log(before, RECORDS + 1).await?;
    let more = has_more(&mut entries, RECORDS);
    Ok(chat.views.moderation_log(&entries, more)?)
}

/// Takes an action, confirms it and shows it in the audit log. Returns the user it was about, or `None`
/// if nothing had to be changed.
async fn done(
    chat: &Chat,
    client: &Client,
    action: ModeratorAction,
) -> Result<Option<Option<UserId>>> {
    let done = chat.store.moderate(chat.actor(client), action);
    let done = match done.await? {
        Moderated::Done { words, user } => Ok((words, user)),
        Moderated::Already => return Ok(None),
        Moderated::NotAllowed => Err(NOT_ALLOWED),
        Moderated::Nothing => Err(NOTHING),
        Moderated::NameTaken => Err("Another group has that name."),
        Moderated::Protected => Err("Moderators and the first group cannot be moderated."),
    };
    let (words, user) = done.map_err(Refusal::new)?;
    log_done(&client.user, &words);
    // Clear the notice first, so that a repeated one is shown again.
    chat.push(client, [Push::empty(Selector::NOTICE)]);
    chat.say(client, &Refusal::new(format!("You {words}.")), Tone::Done)?;
    chat.push(client, [log(chat, None).await?]);
    Ok(Some(user))
}

/// Logs what a moderator has done, in the words of the audit log.
pub(super) fn log_done(by: &User, words: &str) {
    tracing::info!(user.id = by.id.0, "moderator {} {words}", by.name);
}

/// After a message was deleted, on any page: updates the moderators' page.
pub(super) async fn deleted(
    chat: &Chat,
    client: &Client,
    message: MessageId,
    room: Option<RoomId>,
) -> Result<()> {
    match (client.outbox.dialect, room) {
        (Dialect::Moderation, Some(room)) if is_moderator(chat, client).await? => {
            chat.push(client, [log(chat, None).await?]);
            show_message(chat, client, message, room).await
        }
        _ => Ok(()),
    }
}

async fn show_message(chat: &Chat, client: &Client, id: MessageId, room: RoomId) -> Result<()> {
    let search = Search {
        before: MessageId(id.0.saturating_add(1)),
        ..newest(room)
    };
    let FoundMessages { messages, .. } = chat.store.message_records(search).await?;
    if let Some(record) = messages.first().filter(|one| one.message.id == id) {
        chat.push(client, [chat.views.moderation_message(record)?]);
    }
    Ok(())
}

async fn show_person(chat: &Chat, client: &Client, name: &str) -> Result<()> {
    let name = name.to_lowercase();
    let people = chat.store.person_records(&name, "", 1).await?;
    if let Some(person) = people.first().filter(|one| one.user.name == name) {
        chat.push(client, [chat.views.moderation_person(person)?]);
    }
    Ok(())
}

/// Shows a notice in all tabs of a user, on every node.
fn tell_all(chat: &Chat, user: UserId, words: &str) -> Result<()> {
    let refusal = Refusal::new(words);
    let notice = |dialect| chat.views.notice(dialect, &refusal, Tone::Refusal);
    let (frame, plain) = (
        notice(Dialect::V1)?.encode(),
        notice(Dialect::Plain)?.encode(),
    );
    chat.show_notice(user, &frame, Some(&plain));
    let plain = Some(plain);
    chat.tell_others(News::Notice { user, frame, plain });
    Ok(())
}

/// When a group has changed, the lists of groups in tabs may be out of date. Each tab reads its own
/// from the store. They do so a few at a time, so that nobody waits behind the lists of thousands.
pub(super) async fn outdate_groups(chat: Weak<Chat>, mut changed: mpsc::Receiver<()>) {
    while let (Some(()), Some(chat)) = (changed.recv().await, chat.upgrade()) {
        let tabs = chat.hub.all();
        drop(chat);
        for tabs in tabs.chunks(OUTDATED_AT_ONCE) {
            tabs.iter().for_each(|tab| tab.outdate_groups());
            tokio::time::sleep(OUTDATED_EVERY).await;
        }
    }
}

/// The name of a group as the tabs in it show it.
struct Headings {
    page: Frame,
    plain: Frame,
}

impl Headings {
    /// Whether a tab shows another name. Notes that it has this one now.
    fn are_new_to(&self, tab: &Outbox) -> bool {
        let heading = match tab.dialect {
            Dialect::Plain => &self.plain,
            _ => &self.page,
        };
        tab.is_new(Region::Heading, heading)
    }
}

impl Chat {
    /// What the moderators' page shows first.
    pub(super) async fn show_moderation(&self, client: &Client) -> Result<()> {
        if !is_moderator(self, client).await? {
            return Err(Refusal::new(NOT_ALLOWED).into());
        }
        look_for_groups(self, client, "", "").await?;
        look_for_people(self, client, "", "").await?;
        self.push(client, [log(self, None).await?]);
        Ok(())
    }

    /// Creates a link with which somebody chooses a new password, for a moderator to pass on. The person
    /// is told if they are online. `None` if there is no such account, or if it is a moderator's.
    pub async fn add_password_link(
        &self,
        by: &User,
        name: &str,
    ) -> std::result::Result<Option<ResumeToken>, Denied> {
        let token = ResumeToken::random();
        let added = self
            .store
            .add_password_link(Some(by.id), name, token.hash());
        let Moderated::Done { words, user } = added.await? else {
            return Ok(None);
        };
        log_done(by, &words);
        if let Some(user) = user {
            let told = tell_all(self, user, PASSWORD_LINK);
            let _ = told.inspect_err(|failure| log_failure("tell a person", failure));
        }
        Ok(Some(token))
    }

    /// The people in a changed group reconnect, except those whose page already shows the new name.
    pub(super) async fn take_group_change(&self, room: RoomId) {
        self.changed.add(room);
        self.hub.unlist(room);
        let headings = self.headings_of_group(room).await;
        let headings = headings.inspect_err(|failure| log_failure("read a changed group", failure));
        let headings = headings.ok().flatten();
        for tab in self.hub.in_room(room) {
            if headings
                .as_ref()
                .is_none_or(|headings| headings.are_new_to(&tab))
            {
                tab.close(GROUP_CHANGED);
            }
        }
        self.groups_have_changed();
    }

    fn groups_have_changed(&self) {
        // If an update is pending already, it covers this change too.
        let _ = self.groups_changed.try_send(());
    }

    /// News of changed groups may have been lost. Reconnects the people whose group has another name
    /// now. Those who may no longer be in their group are found when the lease is renewed.
    pub(super) async fn make_up_for_groups(&self) -> Result<()> {
        for room in self.hub.active_rooms() {
            if let Some(headings) = self.headings_of_group(room).await? {
                let mut tabs = self.hub.in_room(room);
                tabs.retain(|tab| tab.dialect.has(&Selector::GROUP_NAME));
                tabs.retain(|tab| headings.are_new_to(tab));
                tabs.iter().for_each(|tab| tab.close(GROUP_CHANGED));
            }
        }
        self.groups_have_changed();
        Ok(())
    }

    /// The current state of a group.
    pub(super) async fn group(&self, room: RoomId) -> Result<Option<Room>> {
        let group = self.store.group_record(room).await?;
        Ok(group.map(|group| {
            let prefix = if group.restricted { RESTRICTED } else { "" };
            let kind = RoomKind::Group(format!("{prefix}{}", group.name));
            Room { id: room, kind }
        }))
    }

    async fn headings_of_group(&self, room: RoomId) -> Result<Option<Headings>> {
        let Some(group) = self.group(room).await? else {
            return Ok(None);
        };
        let heading = |dialect| self.views.group_name(dialect, &group);
        Ok(Some(Headings {
            page: heading(Dialect::V1)?.encode(),
            plain: heading(Dialect::Plain)?.encode(),
        }))
    }

    /// Somebody was banned: their sockets get a notice and are closed.
    pub(super) fn take_ban(&self, user: UserId) {
        let tabs = self.hub.of_user(user);
        tabs.iter().for_each(|tab| self.close_banned(tab));
    }

    pub(super) fn close_banned(&self, tab: &Outbox) {
        let (words, close) = self.farewell_to_banned(tab.dialect);
        tab.push(words);
        tab.close(close);
    }

    /// The last notice for a tab of somebody who is banned, and how its socket is closed.
    pub fn farewell_to_banned(&self, dialect: Dialect) -> (Option<Frame>, Close) {
        (
            self.farewell(dialect, BANNED),
            Close::drained(1008, "banned"),
        )
    }

    /// If the group that a client has just entered has changed recently, checks again whether it may be
    /// there. The change may have found no socket of this client to close.
    pub(super) async fn look_again_at(&self, client: &Client, room: &Room) -> Result<()> {
        if !self.changed.has(room.id) {
            return Ok(());
        }
        let entered = self.enter(client, Target::Room(room.id)).await?;
        if entered.is_none_or(|(entered, _)| entered != *room) {
            client.outbox.close(GROUP_CHANGED);
        }
        Ok(())
    }
}
