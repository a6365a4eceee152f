//! Who has recently joined or left a room, for the quiet lines that say so.
//!
//! The caller reports joins, departures and the time; this module knows no clock, store or HTML. People
//! who may be back in a moment count as left after [`GRACE`], so neither a reload nor a change of node
//! is announced.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::{RoomId, User, UserId};

/// How long a person counts as online after their socket has closed, so that a reload is not announced.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// How long a “joined” or “left” line is shown.
const SAID_FOR: Duration = Duration::from_secs(60);
/// How many joins and departures are remembered for each room.
const REMEMBERED: usize = 10_000;
/// How many people a line names.
const NAMED: usize = 3;

/// The recent joins and departures of all rooms.
#[derive(Default)]
pub(super) struct Moves {
    rooms: HashMap<RoomId, Room>,
    /// Who is away and may be back, until when, and their name.
    away: HashMap<(RoomId, UserId), (Instant, String)>,
    /// When to check whether somebody has left, in order of time.
    leaving: VecDeque<(Instant, RoomId, UserId)>,
    /// When to check whether a line has been shown long enough, in order of time.
    fading: VecDeque<(Instant, RoomId)>,
}

#[derive(Default)]
struct Room {
    /// The newest last; only the last move of each person.
    recent: VecDeque<Move>,
    /// Who joined and who left since the last call of [`Moves::take_news`].
    news: Lines,
}

struct Move {
    at: Instant,
    user: UserId,
    name: String,
    joined: bool,
}

/// Who joined and who left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) joined: Names,
    pub(super) left: Names,
}

/// The names of some people, and how many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// At most one more than [`NAMED`].
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

    /// As part of a sentence: anna, bob and carl. Of many, the first three names and the number of the
    /// others.
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
    /// Somebody has joined a room, or `returns` to it. Who returns is announced only if they are said to have left.
    pub(super) fn joined(&mut self, room: RoomId, user: &User, returns: bool, now: Instant) {
        let was_away = self.away.remove(&(room, user.id)).is_some();
        if !was_away && (!returns || self.has_left(room, user.id)) {
            self.announce(room, user.id, user.shown_name().to_owned(), true, now);
        }
    }

    /// Somebody has left a room, or is away and may be back.
    pub(super) fn left(&mut self, room: RoomId, user: &User, may_return: bool, now: Instant) {
        let name = user.shown_name().to_owned();
        match may_return {
            true => {
                let until = now + GRACE;
                self.away.insert((room, user.id), (until, name));
                self.leaving.push_back((until, room, user.id));
            }
            false => {
                self.away.remove(&(room, user.id));
                self.announce(room, user.id, name, false, now);
            }
        }
    }

    /// Lets time pass. Returns the rooms whose lines have changed.
    pub(super) fn pass(&mut self, now: Instant) -> HashSet<RoomId> {
        let mut changed = HashSet::new();
        while let Some((until, room, user)) = self.leaving.pop_front_if(|next| next.0 <= now) {
            // Somebody who came back and left again gets more time.
            if let Entry::Occupied(away) = self.away.entry((room, user))
                && away.get().0 <= until
            {
                let (_, name) = away.remove();
                self.announce(room, user, name, false, now);
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

    /// The lines of a room.
    pub(super) fn lines(&self, room: RoomId) -> Lines {
        let mut lines = Lines::default();
        for one in self
            .rooms
            .get(&room)
            .into_iter()
            .flat_map(|room| room.recent.iter().rev())
        {
            match one.joined {
                true => lines.joined.add(&one.name),
                false => lines.left.add(&one.name),
            }
        }
        lines
    }

    /// Who joined and who left since the last call, the newest last.
    pub(super) fn take_news(&mut self, room: RoomId) -> Lines {
        let room = self.rooms.get_mut(&room);
        room.map(|room| std::mem::take(&mut room.news))
            .unwrap_or_default()
    }

    /// Whether the person's last move in the room was to leave it.
    fn has_left(&self, room: RoomId, user: UserId) -> bool {
        let room = self.rooms.get(&room);
        let mut recent = room.into_iter().flat_map(|room| &room.recent);
        recent.any(|one| one.user == user && !one.joined)
    }

    fn announce(&mut self, room: RoomId, user: UserId, name: String, joined: bool, at: Instant) {
        self.fading.push_back((at + SAID_FOR, room));
        let Room { recent, news, .. } = self.rooms.entry(room).or_default();
        let names = match joined {
            true => &mut news.joined,
            false => &mut news.left,
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
            joined,
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
    fn check(moves: &Moves, joined: &[&str], left: &[&str]) {
        let lines = moves.lines(ROOM);
        assert_eq!((lines.joined, lines.left), (names(joined), names(left)));
    }

    fn names(names: &[&str]) -> Names {
        let mut all = Names::default();
        names.iter().for_each(|name| all.add(name));
        all
    }

    #[test]
    fn names_are_part_of_a_sentence() {
        #[track_caller]
        fn check(people: &[&str], expected: &str) {
            assert_eq!(names(people).words(), expected);
        }
        check(&[], "");
        check(&["anna"], "anna");
        check(&["anna", "bob"], "anna and bob");
        check(&["anna", "bob", "carl", "dora"], "anna, bob, carl and dora");
        check(&["a", "b", "c", "d", "e"], "a, b, c and 2 others");
        check(&["a"; 200], "a, a, a and 197 others");
    }

    #[test]
    fn joins_and_departures_are_shown_for_a_while() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        moves.joined(ROOM, &user("bo"), false, now);
        moves.joined(ROOM, &user("anna"), false, now + SECOND);
        check(&moves, &["anna", "bo"], &[]);
        moves.left(ROOM, &user("bo"), true, now + 2 * SECOND);
        assert!(moves.pass(now + 3 * SECOND).is_empty());
        check(&moves, &["anna", "bo"], &[]);
        assert_eq!(moves.pass(now + 2 * SECOND + GRACE), HashSet::from([ROOM]));
        check(&moves, &["anna"], &["bo"]);
        assert_eq!(moves.pass(now + SECOND + SAID_FOR), HashSet::from([ROOM]));
        check(&moves, &[], &["bo"]);
        moves.left(ROOM, &user("anna"), false, now + SAID_FOR);
        check(&moves, &[], &["anna", "bo"]);
        moves.pass(now + 3 * SAID_FOR);
        assert!(moves.rooms.is_empty() && moves.away.is_empty());
        assert!(moves.leaving.is_empty() && moves.fading.is_empty());
    }

    #[test]
    fn somebody_back_in_a_moment_is_not_announced() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        let anna = user("anna");
        moves.left(ROOM, &anna, true, now);
        moves.joined(ROOM, &anna, true, now + SECOND);
        assert!(moves.pass(now + GRACE).is_empty());
        check(&moves, &[], &[]);
        // Somebody who was not away returns silently.
        moves.joined(ROOM, &anna, true, now + 2 * GRACE);
        check(&moves, &[], &[]);
        // Back and away again: the grace period starts again.
        moves.left(ROOM, &anna, true, now + 4 * GRACE);
        moves.joined(ROOM, &anna, false, now + 4 * GRACE + SECOND);
        moves.left(ROOM, &anna, true, now + 4 * GRACE + 2 * SECOND);
        assert!(moves.pass(now + 5 * GRACE + SECOND).is_empty());
        assert_eq!(
            moves.pass(now + 5 * GRACE + 2 * SECOND),
            HashSet::from([ROOM])
        );
        check(&moves, &[], &["anna"]);
        // She is said to have left.
        moves.joined(ROOM, &anna, true, now + 6 * GRACE);
        check(&moves, &["anna"], &[]);
    }

    #[test]
    fn only_the_latest_of_many_moves_are_remembered() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        for id in 0..11_000 {
            let name = format!("user{id}");
            let user = User {
                id: UserId(id),
                name,
                display_name: None,
            };
            moves.joined(ROOM, &user, false, now);
        }
        let lines = moves.lines(ROOM);
        assert_eq!(
            (lines.joined.count, &*lines.joined.names[0]),
            (REMEMBERED, "user10999")
        );
    }
}
