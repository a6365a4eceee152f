//! Who is typing in which room. This is never stored. The caller passes the time; this module knows no
//! HTML.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::{RoomId, User, UserId};

/// How long somebody counts as typing after their last `Typing` action. A tab sends one every 2.5 s,
/// and somebody who has vanished must disappear within 6 s.
const TYPING_FOR: Duration = Duration::from_secs(5);
/// How many people are remembered for a room; three or more are not shown by name.
const REMEMBERED: usize = 10;

/// Who is typing.
#[derive(Default)]
pub(super) struct Typing(HashMap<RoomId, Vec<Typist>>);

struct Typist {
    user: User,
    until: Instant,
}

impl Typing {
    /// Somebody is typing. Returns whether that is new.
    pub(super) fn begin(&mut self, room: RoomId, user: &User, now: Instant) -> bool {
        let typists = self.0.entry(room).or_default();
        let (until, full) = (now + TYPING_FOR, typists.len() == REMEMBERED);
        match typists.iter_mut().find(|one| one.user.id == user.id) {
            Some(known) => known.until = until,
            None if full => {}
            None => {
                let user = user.clone();
                typists.push(Typist { user, until });
                return true;
            }
        }
        false
    }

    /// Somebody has sent it, or has left. Returns whether they had been typing.
    pub(super) fn end(&mut self, room: RoomId, user: UserId) -> bool {
        let Some(typists) = self.0.get_mut(&room) else {
            return false;
        };
        let before = typists.len();
        typists.retain(|one| one.user.id != user);
        let ended = typists.len() < before;
        if typists.is_empty() {
            self.0.remove(&room);
        }
        ended
    }

    /// Somebody changed their name. Returns the rooms where they are typing.
    pub(super) fn rename(&mut self, user: &User) -> Vec<RoomId> {
        let mut rooms = Vec::new();
        for (room, typists) in &mut self.0 {
            if let Some(typist) = typists.iter_mut().find(|one| one.user.id == user.id) {
                typist.user = user.clone();
                rooms.push(*room);
            }
        }
        rooms
    }

    /// Lets time pass. Returns the rooms where somebody has stopped.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<RoomId> {
        let mut changed = Vec::new();
        self.0.retain(|room, typists| {
            let before = typists.len();
            typists.retain(|one| now < one.until);
            if typists.len() < before {
                changed.push(*room);
            }
            !typists.is_empty()
        });
        changed
    }

    /// Who is typing in a room, in the order in which they started.
    pub(super) fn of(&self, room: RoomId) -> Vec<User> {
        let typists = self.0.get(&room).into_iter().flatten();
        typists.map(|one| one.user.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(1);

    fn user(id: i64) -> User {
        User {
            id: UserId(id),
            name: format!("user{id}"),
            display_name: None,
        }
    }

    #[test]
    fn somebody_without_a_new_sign_has_stopped() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(typing.begin(ROOM, &user(1), now));
        assert!(typing.begin(ROOM, &user(2), now + second));
        assert!(!typing.begin(ROOM, &user(1), now + 2 * second));
        assert!(typing.pass(now + 5 * second).is_empty());
        assert_eq!(typing.pass(now + 6 * second), [ROOM]);
        assert_eq!(typing.of(ROOM), [user(1)]);
        assert_eq!(typing.pass(now + 7 * second), [ROOM]);
        assert!(typing.of(ROOM).is_empty() && typing.0.is_empty());
    }

    #[test]
    fn typing_ends_as_soon_as_the_message_is_sent() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.begin(ROOM, &user(1), now);
        assert!(!typing.end(RoomId(2), user(1).id));
        assert!(!typing.end(ROOM, user(2).id));
        assert!(typing.end(ROOM, user(1).id));
        assert!(typing.0.is_empty());
    }

    #[test]
    fn people_typing_are_shown_by_their_current_name() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.begin(ROOM, &user(1), now);
        typing.begin(RoomId(2), &user(2), now);
        let renamed = User {
            display_name: Some("Anna".to_owned()),
            ..user(1)
        };
        assert_eq!(typing.rename(&renamed), [ROOM]);
        assert_eq!(typing.of(ROOM), [renamed]);
    }

    #[test]
    fn a_crowd_does_not_fill_the_memory() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        for id in 0..1000 {
            typing.begin(ROOM, &user(id), now);
        }
        assert_eq!(typing.of(ROOM).len(), REMEMBERED);
    }
}
