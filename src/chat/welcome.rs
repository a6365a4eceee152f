//! The welcome messages of groups. This module knows no tabs and renders nothing.

use std::collections::HashMap;

use crate::model::{GroupName, Room, RoomKind};

/// The placeholder for the group's name in a message.
const GROUP: &str = "{group}";

/// The welcome messages of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    everywhere: String,
    /// The messages of single groups, by the key of the group's name.
    groups: HashMap<String, String>,
}

impl Welcome {
    /// `everywhere` is the message of all groups without a message of their own; an empty message turns
    /// it off. `{group}` is replaced by the group's name, such as `#python`.
    pub fn new(everywhere: String, groups: impl IntoIterator<Item = (GroupName, String)>) -> Self {
        let groups = groups.into_iter();
        Self {
            everywhere,
            groups: groups.map(|(name, words)| (name.key(), words)).collect(),
        }
    }

    /// The welcome message of a room, if it has one.
    pub(super) fn to(&self, room: &Room) -> Option<String> {
        let RoomKind::Group(name) = &room.kind else {
            return None;
        };
        let own = self.groups.get(&GroupName::key_of(name));
        let words = own.unwrap_or(&self.everywhere);
        (!words.trim().is_empty()).then(|| words.replace(GROUP, &format!("#{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RoomId, User, UserId};

    #[test]
    fn a_group_has_its_own_message_or_the_common_one() {
        let python = GroupName::new("Python").unwrap();
        let silent = GroupName::new("silent").unwrap();
        let welcome = Welcome::new(
            "Welcome to {group}.".to_owned(),
            [
                (python, "No spaces, {group} has tabs.".to_owned()),
                (silent, " ".to_owned()),
            ],
        );
        let group = |name: &str| {
            let kind = RoomKind::Group(name.to_owned());
            welcome.to(&Room {
                id: RoomId(1),
                kind,
            })
        };
        assert_eq!(group("hi").as_deref(), Some("Welcome to #hi."));
        assert_eq!(
            group("pyTHON").as_deref(),
            Some("No spaces, #pyTHON has tabs.")
        );
        assert_eq!(group("silent"), None);
        let with = User {
            id: UserId(1),
            name: "anna".to_owned(),
            display_name: None,
        };
        let kind = RoomKind::Private { with };
        assert_eq!(
            welcome.to(&Room {
                id: RoomId(1),
                kind
            }),
            None
        );
    }
}
