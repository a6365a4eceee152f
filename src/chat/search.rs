//! Showing the results of a search.
//!
//! They are a page without a room, like the lobby, with an address of their own.

use super::rooms::OF_A_ROOM;
use super::{Chat, Client, Result};
use crate::hub::Region;
use crate::model::{History, MessageId, RoomId, Version};
use crate::protocol::{MENTIONS, PAGE_MESSAGES, Push, SEARCH_CHARACTERS, Selector};
use crate::search::Query;

impl Chat {
    /// Shows what a search finds; before a message, what it finds there in addition.
    pub(super) async fn search(
        &self,
        client: &Client,
        typed: &str,
        before: Option<MessageId>,
    ) -> Result<()> {
        if !client.outbox.dialect.has(&Selector::SEARCH_PAGE) {
            return Ok(());
        }
        let mut typed: String = typed.trim().chars().take(SEARCH_CHARACTERS).collect();
        if typed.eq_ignore_ascii_case(MENTIONS) {
            MENTIONS.clone_into(&mut typed);
        }
        let query = Query::of(&typed);
        let me = client.user.id;
        let store = &self.store;
        let found = match &*typed {
            MENTIONS => store.mentions(me, before, PAGE_MESSAGES).await?,
            _ => {
                store
                    .search(me, query.clone(), before, PAGE_MESSAGES)
                    .await?
            }
        };
        if before.is_some() {
            let older = self.views.older_results(&typed, &query, &found)?;
            self.push(client, older);
            return Ok(());
        }
        self.show_search(client).await?;
        let heading = self.views.search_name(&typed)?;
        let page = self.views.search_page(&typed, &query, &found)?;
        self.push(client, [page, heading]);
        Ok(())
    }

    /// Moves the client from its room to the page with the results.
    async fn show_search(&self, client: &Client) -> Result<()> {
        let place = client.outbox.place().map(|place| place.room);
        if place == Some(RoomId::SEARCH) {
            return Ok(());
        }
        let moved = self.store.leave_room(client.client_ref).await?;
        self.write_reads_of(client.user.id).await?;
        let groups = self.groups(client, None).await?;
        let groups = groups.filter(|groups| client.outbox.is_new(Region::Groups, groups));
        self.push(client, OF_A_ROOM.map(Push::empty));
        let no_lobby = Push::empty(Selector::LOBBY);
        self.push(client, [no_lobby, self.views.no_messages()?]);
        client.outbox.push(groups);
        let (former, _) = self.hub.enter(&client.outbox, RoomId::SEARCH, None);
        let nothing = Version {
            room: RoomId::SEARCH,
            history: History(0),
            number: 0,
        };
        client.outbox.bring(RoomId::SEARCH, nothing, []);
        let from = former.map(|place| place.room);
        self.entered(&client.user, None, from, moved, false);
        Ok(())
    }
}
