//! Who has come to a room and who has gone lately, for the quiet lines that say so.
//!
//! It is told of those who come and go, on whichever node, and what time it is; it knows no clock,
//! store or HTML. Whoever may be back in a moment has gone when they have been away for [`GRACE`], so
//! that neither a reload nor going from one node to another is news.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::{RoomId, User, UserId};

/// For so long a person whose socket has gone still counts as here: a reload is no leaving.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// How long a line says that somebody came or went.
const SAID_FOR: Duration = Duration::from_secs(60);
/// How many who came or went a room remembers at most.
const REMEMBERED: usize = 10_000;
/// How many are told by name, of however many.
const NAMED: usize = 3;

/// The comings and goings of all rooms.
#[derive(Default)]
pub(super) struct Moves {
    rooms: HashMap<RoomId, Room>,
    /// Who is away and may be back, until when, and what they are called.
    away: HashMap<(RoomId, UserId), (Instant, String)>,
    /// In the order of time: when to look whether somebody has gone.
    going: VecDeque<(Instant, RoomId, UserId)>,
    /// The same: when to look whether something has been said for long enough.
    fading: VecDeque<(Instant, RoomId)>,
}

#[derive(Default)]
struct Room {
    /// The newest last; of each person only the last thing they did.
    recent: VecDeque<Move>,
    /// Who came and who went since that was asked last.
    news: Lines,
}

struct Move {
    at: Instant,
    user: UserId,
    name: String,
    came: bool,
}

/// Who came and who went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) came: Names,
    pub(super) went: Names,
}

/// Some people by name, and how many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Of more than one too many only [`NAMED`] are told.
    names: Vec<String>,
    count: usize,
}

impl Names {
    fn add(&mut self, name: &str) {
        self.count += 1;
        if self.names.len() <= NAMED {
            self.names.push(name.to_owned());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// In a sentence: anna, bob and carl; of many the first three and the number of the rest.
    pub(super) fn words(&self) -> String {
        match self.names.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [most @ .., last] if self.count <= NAMED + 1 => {
                format!("{} and {last}", most.join(", "))
            }
            names => {
                let names = names.iter().take(NAMED).cloned().collect::<Vec<_>>();
                format!("{} and {} others", names.join(", "), self.count - NAMED)
            }
        }
    }
}

impl Moves {
    /// Somebody has come to a room, or `returns` to it.
    pub(super) fn came(&mut self, room: RoomId, user: &User, returns: bool, now: Instant) {
        if self.away.remove(&(room, user.id)).is_none() && !returns {
            self.tell(room, user.id, user.called().to_owned(), true, now);
        }
    }

    /// Somebody has gone from a room, or is away and may be back.
    pub(super) fn went(&mut self, room: RoomId, user: &User, may_return: bool, now: Instant) {
        let name = user.called().to_owned();
        match may_return {
            true => {
                let until = now + GRACE;
                self.away.insert((room, user.id), (until, name));
                self.going.push_back((until, room, user.id));
            }
            false => {
                self.away.remove(&(room, user.id));
                self.tell(room, user.id, name, false, now);
            }
        }
    }

    /// Lets time pass. Answers the rooms whose lines are different now.
    pub(super) fn pass(&mut self, now: Instant) -> HashSet<RoomId> {
        let mut changed = HashSet::new();
        while let Some((until, room, user)) = self.going.pop_front_if(|next| next.0 <= now) {
            // Whoever came back and went again has more time.
            if let Entry::Occupied(away) = self.away.entry((room, user))
                && away.get().0 <= until
            {
                let (_, name) = away.remove();
                self.tell(room, user, name, false, now);
                changed.insert(room);
            }
        }
        while let Some((_, id)) = self.fading.pop_front_if(|next| next.0 <= now) {
            let Entry::Occupied(mut room) = self.rooms.entry(id) else {
                continue;
            };
            room.get_mut().recent.retain(|one| now < one.at + SAID_FOR);
            if room.get().recent.is_empty() {
                room.remove();
            }
            changed.insert(id);
        }
        changed
    }

    /// What is said of a room.
    pub(super) fn lines(&self, room: RoomId) -> Lines {
        let mut lines = Lines::default();
        for one in self
            .rooms
            .get(&room)
            .into_iter()
            .flat_map(|room| room.recent.iter().rev())
        {
            match one.came {
                true => lines.came.add(&one.name),
                false => lines.went.add(&one.name),
            }
        }
        lines
    }

    /// Who came and who went since this was asked last, the newest last.
    pub(super) fn take_news(&mut self, room: RoomId) -> Lines {
        let room = self.rooms.get_mut(&room);
        room.map(|room| std::mem::take(&mut room.news))
            .unwrap_or_default()
    }

    fn tell(&mut self, room: RoomId, user: UserId, name: String, came: bool, at: Instant) {
        self.fading.push_back((at + SAID_FOR, room));
        let Room { recent, news, .. } = self.rooms.entry(room).or_default();
        let names = match came {
            true => &mut news.came,
            false => &mut news.went,
        };
        names.add(&name);
        recent.retain(|one| one.user != user);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Move {
            at,
            user,
            name,
            came,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn user(name: &str) -> User {
        User {
            id: UserId(name.len().cast_signed() as i64),
            name: name.to_owned(),
            display_name: None,
        }
    }

    #[track_caller]
    fn check(moves: &Moves, came: &[&str], went: &[&str]) {
        let lines = moves.lines(ROOM);
        assert_eq!((lines.came, lines.went), (told(came), told(went)));
    }

    fn told(names: &[&str]) -> Names {
        let mut told = Names::default();
        names.iter().for_each(|name| told.add(name));
        told
    }

    #[test]
    fn names_stand_in_a_sentence() {
        #[track_caller]
        fn check(names: &[&str], expected: &str) {
            assert_eq!(told(names).words(), expected);
        }
        check(&[], "");
        check(&["anna"], "anna");
        check(&["anna", "bob"], "anna and bob");
        check(&["anna", "bob", "carl", "dora"], "anna, bob, carl and dora");
        check(&["a", "b", "c", "d", "e"], "a, b, c and 2 others");
        check(&["a"; 200], "a, a, a and 197 others");
    }

    #[test]
    fn whoever_comes_and_goes_is_told_for_a_while() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        moves.came(ROOM, &user("bo"), false, now);
        moves.came(ROOM, &user("anna"), false, now + SECOND);
        check(&moves, &["anna", "bo"], &[]);
        moves.went(ROOM, &user("bo"), true, now + 2 * SECOND);
        assert!(moves.pass(now + 3 * SECOND).is_empty());
        check(&moves, &["anna", "bo"], &[]);
        assert_eq!(moves.pass(now + 2 * SECOND + GRACE), HashSet::from([ROOM]));
        check(&moves, &["anna"], &["bo"]);
        assert_eq!(moves.pass(now + SECOND + SAID_FOR), HashSet::from([ROOM]));
        check(&moves, &[], &["bo"]);
        moves.went(ROOM, &user("anna"), false, now + SAID_FOR);
        check(&moves, &[], &["anna", "bo"]);
        moves.pass(now + 3 * SAID_FOR);
        assert!(moves.rooms.is_empty() && moves.away.is_empty());
        assert!(moves.going.is_empty() && moves.fading.is_empty());
    }

    #[test]
    fn whoever_is_back_in_a_moment_is_no_news() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        let anna = user("anna");
        moves.went(ROOM, &anna, true, now);
        moves.came(ROOM, &anna, true, now + SECOND);
        assert!(moves.pass(now + GRACE).is_empty());
        check(&moves, &[], &[]);
        // Who was not away returns without a word.
        moves.came(ROOM, &anna, true, now + 2 * GRACE);
        check(&moves, &[], &[]);
        // Back and away again: the grace begins anew.
        moves.went(ROOM, &anna, true, now + 4 * GRACE);
        moves.came(ROOM, &anna, false, now + 4 * GRACE + SECOND);
        moves.went(ROOM, &anna, true, now + 4 * GRACE + 2 * SECOND);
        assert!(moves.pass(now + 5 * GRACE + SECOND).is_empty());
        assert_eq!(
            moves.pass(now + 5 * GRACE + 2 * SECOND),
            HashSet::from([ROOM])
        );
        check(&moves, &[], &["anna"]);
    }

    #[test]
    fn of_many_only_the_last_are_remembered() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        for id in 0..11_000 {
            let name = format!("user{id}");
            let user = User {
                id: UserId(id),
                name,
                display_name: None,
            };
            moves.came(ROOM, &user, false, now);
        }
        let lines = moves.lines(ROOM);
        assert_eq!(
            (lines.came.count, &*lines.came.names[0]),
            (REMEMBERED, "user10999")
        );
    }
}
