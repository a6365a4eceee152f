//! The moderators' page and its fragments.

use minijinja::{Value, context};
use serde_json::json;

use super::{Result, Views, file_context, user_context};
use crate::model::{Millis, ResumeToken, RoomId, User};
use crate::moderation::{
    AuditEntry, FoundMessages, GroupRecord, MessageRecord, PersonRecord, Search, Standing,
};
use crate::protocol::{FIRST_GROUP, MODERATION_SOCKET_PATH, Push, Selector};

impl Views {
    /// The moderators' page.
    pub fn moderation_page(&self, scheme: &str, host: &str) -> Result<String> {
        let context = context! { scheme, host, socket => MODERATION_SOCKET_PATH };
        self.render("moderation.html", context)
    }

    /// The page at which a visitor becomes a moderator with a `link`: the signed-in `user`, otherwise
    /// somebody who has to register first. Without a link it only shows the reason.
    pub fn moderator_link_page(
        &self,
        link: Option<&ResumeToken>,
        user: Option<&User>,
        reason: Option<&str>,
    ) -> Result<String> {
        let (link, user) = (link.map(ToString::to_string), user.map(user_context));
        self.render("moderator_link.html", context! { link, user, reason })
    }

    /// The page that shows a moderator the link with which somebody chooses a new password, or the
    /// reason why there is none.
    pub fn password_link_page(
        &self,
        name: &str,
        link: std::result::Result<&str, &str>,
    ) -> Result<String> {
        let (link, reason) = (link.ok(), link.err());
        self.render("password_link.html", context! { name, link, reason })
    }

    /// The page at which a person chooses a new password with a `link`. Without a person it only shows
    /// the reason.
    pub fn reset_password_page(
        &self,
        link: &str,
        user: Option<&User>,
        reason: Option<&str>,
    ) -> Result<String> {
        let user = user.map(user_context);
        self.render("reset_password.html", context! { link, user, reason })
    }

    /// The groups whose names begin with `text`. `is_first` says that this is the first page, and
    /// `more` that there are others.
    pub fn moderation_groups(
        &self,
        text: &str,
        is_first: bool,
        groups: &[GroupRecord],
        more: bool,
    ) -> Result<Push> {
        let first = (!is_first).then(|| json!({ "text": text }).to_string());
        let last = groups.last().filter(|_| more);
        let more = last.map(|last| json!({ "text": text, "after": last.key }).to_string());
        let groups: Vec<_> = groups.iter().map(group_record_context).collect();
        let context = context! { groups, first, more };
        self.fragment(Selector::MODERATION_GROUPS, context)
    }

    /// One group in its current state; `None` if it has been removed.
    pub fn moderation_group(&self, room: RoomId, group: Option<&GroupRecord>) -> Result<Push> {
        let place = Selector::moderation_group(room);
        let Some(group) = group.map(group_record_context) else {
            return Ok(Push::removal(place));
        };
        self.outer(place, "_moderation_group.html", context! { group })
    }

    /// The people whose user names begin with `text`. `is_first` says that this is the first page, and
    /// `more` that there are others.
    pub fn moderation_people(
        &self,
        text: &str,
        is_first: bool,
        people: &[PersonRecord],
        more: bool,
    ) -> Result<Push> {
        let first = (!is_first).then(|| json!({ "text": text }).to_string());
        let last = people.last().filter(|_| more);
        let more = last.map(|last| json!({ "text": text, "after": last.user.name }).to_string());
        let people: Vec<_> = people.iter().map(person_record_context).collect();
        let context = context! { people, first, more };
        self.fragment(Selector::MODERATION_PEOPLE, context)
    }

    /// One person in their current state.
    pub fn moderation_person(&self, person: &PersonRecord) -> Result<Push> {
        let context = context! { person => person_record_context(person) };
        let place = Selector::moderation_person(person.user.id);
        self.outer(place, "_moderation_person.html", context)
    }

    /// A group's newest messages, and the form to search for others.
    pub fn moderation_messages(&self, group: &GroupRecord, found: &FoundMessages) -> Result<Push> {
        let room = group.id.to_string();
        let more = found.before;
        let more = more.map(|before| json!({ "room": room, "before": before.0 }).to_string());
        let context = context! {
            group => group_record_context(group), more,
            messages => message_record_contexts(found),
        };
        self.fragment(Selector::MODERATION_MESSAGES, context)
    }

    /// The results of a search in them; `from` and `until` as they were entered.
    pub fn moderation_found(
        &self,
        search: &Search,
        from: &str,
        until: &str,
        found: &FoundMessages,
    ) -> Result<Push> {
        let more = found.before.map(|before| {
            json!({
                "room": search.room.to_string(), "author": search.author, "words": search.words,
                "from": from, "until": until, "before": before.0,
            })
            .to_string()
        });
        let context = context! { more, messages => message_record_contexts(found) };
        self.fragment(Selector::MODERATION_FOUND, context)
    }

    /// One message in its current state.
    pub fn moderation_message(&self, record: &MessageRecord) -> Result<Push> {
        let context = context! { message => message_record_context(record) };
        let place = Selector::moderation_message(record.message.id);
        self.outer(place, "_moderation_message.html", context)
    }

    /// The audit log, the latest entries first, and whether there is `more`.
    pub fn moderation_log(&self, entries: &[AuditEntry], more: bool) -> Result<Push> {
        let last = entries.last().filter(|_| more);
        let more = last.map(|last| json!({ "before": last.id }).to_string());
        let entry = |entry: &AuditEntry| {
            context! {
                at => moment(entry.at), moderator => &entry.moderator, words => &entry.words,
            }
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        self.fragment(Selector::MODERATION_LOG, context! { entries, more })
    }
}

/// `2026-11-21 07:30 UTC`.
fn moment(at: Millis) -> String {
    let text = at.to_rfc3339();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

fn group_record_context(group: &GroupRecord) -> Value {
    let room = group.id.to_string();
    context! {
        id => &room, name => &group.name, people => group.people, changes => group.changes,
        since => &moment(group.created_at)[..10], restricted => group.restricted,
        mutable => group.key != FIRST_GROUP,
        payload => json!({ "room": room }).to_string(),
        restrict => json!({ "room": room, "on": !group.restricted }).to_string(),
    }
}

fn person_record_context(person: &PersonRecord) -> Value {
    let name = &person.user.name;
    let Standing {
        moderator,
        muted,
        banned,
    } = person.standing;
    let marks = [
        (moderator, "moderator"),
        (muted, "muted"),
        (banned, "banned"),
    ];
    let marks = marks.into_iter().filter(|(is, _)| *is);
    let marks: Vec<_> = marks.map(|(_, mark)| mark).collect();
    context! {
        id => person.user.id.0, online => person.online, since => &moment(person.arrived_at)[..10],
        moderator, muted, banned, marks, registered => person.registered,
        mute => json!({ "userName": name, "on": !muted }).to_string(),
        ban => json!({ "userName": name, "on": !banned }).to_string(),
        ..user_context(&person.user)
    }
}

fn message_record_contexts(found: &FoundMessages) -> Vec<Value> {
    found.messages.iter().map(message_record_context).collect()
}

fn message_record_context(record: &MessageRecord) -> Value {
    let message = &record.message;
    let mut marks = Vec::new();
    if message.edited {
        marks.push("edited");
    }
    if message.deleted {
        marks.push(match message.by_moderator {
            true => "deleted by a moderator",
            false => "deleted by its author",
        });
    }
    let action = match message.deleted {
        false => Some("Delete message"),
        true => record.restorable.then_some("Restore message"),
    };
    let files: Vec<_> = message.files.iter().map(file_context).collect();
    context! {
        id => message.id.0, name => &message.author.name, user => &message.author.user_name,
        text => &message.text, files, at => moment(message.created_at), marks, action,
        payload => json!({ "message": message.id.0, "room": message.room.to_string() }).to_string(),
    }
}
