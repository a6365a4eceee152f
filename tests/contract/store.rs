//! What every store promises. A new operation gets its promises here, and every driver must keep them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overwire::model::{
    Busy, ClientRef, DisplayName, Emoji, GroupName, History, Message, MessageId, Millis,
    Notifications, NotificationsChange, Original, Page, PasswordHash, Person, PushSubscription,
    Reaction, Room, RoomId, RoomKind, Sought, Target, TokenHash, Topic, UserId, Version, Wording,
};
use overwire::moderation::{FoundMessages, Moderated, Search, Standing};
use overwire::protocol::{ModeratorAction, PAGE_MESSAGES};
use overwire::store::{
    self, ADMIN_LINK_GOOD_FOR, Access, Arrival, Arrived, CatchUp, FREE_AFTER, LEASE, Left,
    Mentions, Moved, NewSession, PASSWORD_LINK_GOOD_FOR, Post, Posted, Refused, Renamed, Resume,
    SESSION_GOOD_FOR, SignedIn, Store, StoreError, Synchronous, TOKEN_GOOD_FOR,
};
use overwire::views::title;
use uuid::Uuid;

use crate::people::{
    NODE, OTHER_NODE, Somebody, amend, arrive, arrive_on, back, back_by_token, ban_of, come_back,
    enter, enter_room, group, hi, keep, make_group, message_by, moderate, new_session, new_user,
    newcomer, password, picture, post, post_worded, private, promote, react, returning, settled,
    sign_in, token, try_to_post, worded,
};
use crate::search::{
    a_message_is_found_by_its_present_text, messages_are_found_by_what_is_typed,
    older_results_reach_the_beginning,
};
use crate::support::postgres::Database;

const MINUTE: Duration = Duration::from_secs(60);

/// A place for a store, and what no operation of the store does.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Opens the store in this place.
    async fn open(&self) -> Arc<Store>;

    /// A copy of this place, while the store is closed.
    async fn copy(&self) -> Self;

    /// The last migration that has everything indexed again.
    const REINDEXING: &str;

    /// Runs these statements beside the store, in one transaction.
    async fn run(&self, statements: &str);

    /// Changes a message like an edit: a new version of its room, which becomes the message's last
    /// change.
    async fn change(&self, message: MessageId, text: &str) {
        self.run(&change_of(message, text)).await;
    }
}

/// The statements of an edit: a new version of the room, and the new text with it.
fn change_of(message: MessageId, text: &str) -> String {
    format!(
        "update rooms set version = version + 1
             where id = (select room_id from messages where id = {message});
         update messages set text = '{text}',
             changed = (select version from rooms where id = room_id),
             worded = (select version from rooms where id = room_id) where id = {message};"
    )
}

/// An SQLite file in a folder of its own.
pub(crate) struct Sqlite {
    folder: tempfile::TempDir,
}

impl Sqlite {
    pub(crate) fn fresh() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("overwire.db")
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn open(&self) -> Arc<Store> {
        let path = self.path();
        store::open(path.to_str().unwrap(), Synchronous::Full, Access::Server)
            .await
            .unwrap()
    }

    async fn copy(&self) -> Self {
        let copy = Self::fresh();
        std::fs::copy(self.path(), copy.path()).unwrap();
        copy
    }

    const REINDEXING: &str =
        include_str!("../../src/store/migrations/sqlite/0022_search_heads.sql");

    async fn run(&self, statements: &str) {
        let db = rusqlite::Connection::open(self.path()).unwrap();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db.execute_batch(&format!("begin immediate; {statements} commit;"))
            .unwrap();
    }
}

/// A PostgreSQL database of its own.
pub(crate) struct Postgres {
    database: Database,
}

impl Postgres {
    pub(crate) async fn fresh() -> Self {
        let database = Database::fresh().await;
        Self { database }
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn open(&self) -> Arc<Store> {
        let address = self.database.address();
        store::open(&address, Synchronous::Full, Access::Server)
            .await
            .unwrap()
    }

    async fn copy(&self) -> Self {
        let database = self.database.copy().await;
        Self { database }
    }

    const REINDEXING: &str =
        include_str!("../../src/store/migrations/postgres/0015_search_phrases.sql");

    async fn run(&self, statements: &str) {
        let db = self.database.look().await;
        db.batch_execute(&format!("begin; {statements} commit;"))
            .await
            .unwrap();
    }
}

macro_rules! every_promise {
    ($backend:expr) => {
        promises! { $backend;
            no_user_is_ever_given_to_two_people
            a_newcomer_is_given_a_random_user
            when_no_user_is_free_the_spare_user_is_made
            a_returning_person_keeps_their_user
            coming_back_needs_the_token
            who_has_left_comes_back_by_the_token_alone
            who_arrives_enters_a_group_at_once
            when_two_tabs_return_with_one_token_one_is_overtaken
            a_late_disconnect_does_not_end_the_next_connection
            an_untouched_user_is_freed_after_a_while_and_not_before
            giving_a_user_to_somebody_else_ends_the_old_token
            a_person_who_returns_before_their_user_is_given_away_keeps_it
            a_token_is_good_for_a_day
            a_browser_stands_for_its_guests_or_for_the_person_who_signed_in
            an_author_is_never_given_to_somebody_else
            a_recipient_is_never_given_to_somebody_else
            a_user_is_not_given_away_while_a_private_room_with_them_is_open
            an_unused_user_is_not_found
            the_clients_of_a_dead_node_leave_when_its_lease_expires
            a_restart_disconnects_everybody_and_they_may_return
            a_client_that_has_ended_can_do_nothing
            a_person_with_several_tabs_joins_and_leaves_a_room_once
            leaving_reports_which_room_was_left
            a_node_that_ends_disconnects_its_people_and_they_may_return
            clients_that_have_ended_are_reported_as_stale
            every_store_has_an_identity_of_its_own
            a_group_is_entered_by_name_or_id
            a_pair_has_one_private_room_whoever_asks_first
            a_private_room_does_not_exist_for_outsiders
            opening_a_private_room_shows_nothing_to_the_other
            a_message_is_stored_as_it_was_written
            a_text_is_stored_as_it_is_shown
            what_a_text_refers_to_is_found_if_everybody_in_the_room_may_see_it
            a_change_names_the_people_whom_the_message_mentions_since_then
            unread_mentions_are_counted_until_they_are_read
            a_reply_shows_its_original_and_calls_its_author
            a_message_survives_a_restart
            versions_grow_by_one_and_ids_with_them_when_many_write
            each_node_gets_its_changes_in_the_order_of_their_commits
            a_change_of_a_private_room_names_the_pair
            a_known_key_returns_what_was_stored_first
            a_file_goes_with_its_message_and_its_object_with_the_last_file
            a_key_sent_many_times_at_once_is_stored_once
            the_same_key_of_another_author_is_another_message
            a_room_accepts_no_message_from_outsiders
            a_refused_message_leaves_nothing_behind
            the_newest_page_has_the_newest_messages_oldest_first
            older_pages_reach_the_beginning_without_a_gap
            a_page_around_a_message_reads_on_in_both_directions
            a_room_is_found_by_the_time_of_its_messages
            a_page_is_one_consistent_snapshot
            the_versions_of_several_rooms_are_read_at_once
            catch_up_says_when_there_is_nothing_new
            catch_up_brings_what_is_missing
            catch_up_from_an_empty_room_brings_everything
            catch_up_over_more_than_a_page_brings_the_newest_page
            catch_up_from_another_rooms_version_brings_the_newest_page
            catch_up_from_another_history_brings_the_newest_page
            catch_up_includes_changed_messages
            only_its_author_edits_and_deletes_a_message
            amending_without_a_difference_changes_nothing
            a_deleted_message_is_no_longer_unread
            a_reaction_changes_its_message_once
            all_reactions_are_counted_and_the_first_people_named
            outsiders_cannot_react_to_a_message
            the_different_reactions_to_a_message_are_limited
            ones_own_reactions_are_listed_newest_first
            a_user_who_reacted_is_never_given_to_somebody_else
            a_private_room_is_found_without_entering_it
            changes_among_older_messages_are_found_by_their_first_and_last
            unread_messages_are_counted_until_they_are_read
            a_read_message_never_becomes_unread_again
            a_group_is_unread_from_the_words_of_others_on
            a_room_is_unread_again_from_a_message_on
            a_group_is_listed_until_it_is_left
            a_group_that_is_muted_says_so
            the_creator_of_a_group_and_moderators_set_its_topic
            people_are_notified_who_want_it_now_and_do_not_look
            a_browser_is_subscribed_until_its_session_ends
            the_first_push_key_stays
            a_user_given_to_a_newcomer_belongs_to_no_group
            people_online_are_listed_longest_first
            people_in_a_group_are_listed_and_counted
            groups_are_listed_busiest_first_and_found_by_name
            conversations_are_listed_unread_first_and_then_latest_first
            people_are_found_by_the_first_letters_of_their_names
            people_to_mention_are_those_in_the_room_then_those_i_know_then_others
            a_taken_name_makes_no_second_user
            the_default_groups_are_in_order
            a_group_is_created_once_and_belongs_to_its_creator
            the_census_counts_users_rooms_and_messages
            messages_since_a_version_are_read_page_by_page
            a_display_name_belongs_to_one_person_online
            people_are_found_by_their_display_names
            a_registered_person_is_recognized_by_their_session_only
            a_name_is_registered_once_and_by_its_guest_only
            a_registered_user_and_their_names_are_never_given_to_somebody_else
            a_session_starts_with_the_password_and_ends_with_its_clients
            a_new_session_replaces_the_former
            a_session_expires_thirty_days_after_its_last_use
            changing_the_password_ends_the_other_sessions
            a_person_with_several_clients_is_listed_and_counted_once
            a_reset_leaves_the_default_groups_and_nothing_else
            a_closed_store_refuses_everything
            a_link_makes_one_moderator_once
            a_newcomer_with_a_moderator_link_registers_by_it
            a_password_is_reset_by_a_link_once
            only_moderators_moderate_and_what_they_do_is_recorded
            a_muted_person_can_write_and_change_nothing
            a_banned_person_cannot_return_as_their_user
            the_token_of_a_banned_person_lets_nobody_in
            an_unbanned_person_gets_their_user_back
            a_moderators_group_does_not_exist_for_others
            people_left_in_a_closed_group_are_known_and_learn_nothing_of_it
            a_removed_group_frees_its_name
            a_renamed_group_is_found_by_its_new_name
            a_moderator_deletes_and_restores_messages_of_others_in_groups
            messages_are_searched_by_author_words_and_time
            groups_and_people_are_listed_page_by_page
        }
    };
}

mod sqlite {
    every_promise!(super::Sqlite::fresh());
}

mod postgres {
    every_promise!(super::Postgres::fresh().await);
}

/// Runs these promises one after the other and collects the plans that scan a whole table.
macro_rules! plans {
    ($($promise:ident)*) => {{
        let mut plans = Vec::new();
        $(
            let backend = Postgres::fresh().await;
            backend.database.explain().await;
            $promise(&backend).await;
            plans.extend(backend.database.whole_tables_read().await);
        )*
        plans
    }};
}

#[tokio::test]
async fn no_everyday_query_scans_a_whole_table_of_postgres() {
    let mut plans = plans! {
        no_user_is_ever_given_to_two_people
        a_returning_person_keeps_their_user
        giving_a_user_to_somebody_else_ends_the_old_token
        the_clients_of_a_dead_node_leave_when_its_lease_expires
        a_user_is_not_given_away_while_a_private_room_with_them_is_open
        a_known_key_returns_what_was_stored_first
        a_file_goes_with_its_message_and_its_object_with_the_last_file
        older_pages_reach_the_beginning_without_a_gap
        a_page_around_a_message_reads_on_in_both_directions
        a_room_is_found_by_the_time_of_its_messages
        the_versions_of_several_rooms_are_read_at_once
        catch_up_brings_what_is_missing
        changes_among_older_messages_are_found_by_their_first_and_last
        a_reply_shows_its_original_and_calls_its_author
        messages_since_a_version_are_read_page_by_page
        a_reaction_changes_its_message_once
        ones_own_reactions_are_listed_newest_first
        a_deleted_message_is_no_longer_unread
        unread_messages_are_counted_until_they_are_read
        a_group_is_unread_from_the_words_of_others_on
        a_room_is_unread_again_from_a_message_on
        the_creator_of_a_group_and_moderators_set_its_topic
        people_online_are_listed_longest_first
        people_in_a_group_are_listed_and_counted
        groups_are_listed_busiest_first_and_found_by_name
        conversations_are_listed_unread_first_and_then_latest_first
        people_are_found_by_the_first_letters_of_their_names
        people_to_mention_are_those_in_the_room_then_those_i_know_then_others
        a_display_name_belongs_to_one_person_online
        people_are_found_by_their_display_names
        a_browser_stands_for_its_guests_or_for_the_person_who_signed_in
        a_session_starts_with_the_password_and_ends_with_its_clients
        a_session_expires_thirty_days_after_its_last_use
        a_client_that_has_ended_can_do_nothing
        a_person_with_several_tabs_joins_and_leaves_a_room_once
        leaving_reports_which_room_was_left
        a_node_that_ends_disconnects_its_people_and_they_may_return
        clients_that_have_ended_are_reported_as_stale
        a_banned_person_cannot_return_as_their_user
        the_token_of_a_banned_person_lets_nobody_in
        an_unbanned_person_gets_their_user_back
        people_left_in_a_closed_group_are_known_and_learn_nothing_of_it
        messages_are_searched_by_author_words_and_time
        groups_and_people_are_listed_page_by_page
        messages_are_found_by_what_is_typed
        a_message_is_found_by_its_present_text
        older_results_reach_the_beginning
    };
    // Tables with one row, or one per node, what waits there for a minute, and what is asked for by hand.
    let seldom = [
        "Seq Scan on unused_objects",
        "delete from files\n",
        "Seq Scan on nodes",
        "Seq Scan on writers",
        "Seq Scan on life",
        "Seq Scan on schema_version",
        "Seq Scan on admin_links",
        "select (select count(*) from users)",
    ];
    plans.retain(|plan| !seldom.iter().any(|words| plan.contains(words)));
    assert!(plans.is_empty(), "{}", plans.join("\n"));
}

#[tokio::test]
async fn a_query_that_scans_a_whole_table_of_postgres_is_noticed() {
    let database = Database::fresh().await;
    database.explain().await;
    let bad = "select id from messages where text = ''";
    database.look().await.batch_execute(bad).await.unwrap();
    let plans = database.whole_tables_read().await;
    assert!(matches!(&plans[..], [plan] if plan.contains("Seq Scan on messages")));
}

/// A store with unused users of these names.
async fn seeded(backend: &impl Backend, names: &[&str]) -> Arc<Store> {
    let store = backend.open().await;
    let users = names.iter().map(|name| new_user(name)).collect();
    assert_eq!(store.add_users(users).await.unwrap(), names.len() as u64);
    store
}

/// A store in which anna has entered her private room with bob.
async fn two_in_private(backend: &impl Backend) -> (Arc<Store>, Somebody, Somebody, RoomId) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let room = private(&store, &anna, &bob).await;
    (store, anna, bob, room)
}

async fn try_to_arrive(store: &Store, spare: Option<&str>) -> (Arrived, TokenHash) {
    let arrival = newcomer(NODE, spare);
    let token = arrival.token;
    (store.arrive(arrival).await.unwrap(), token)
}

/// Somebody new arrives, and no user is made for them.
async fn nobody_is_free(store: &Store) -> bool {
    match try_to_arrive(store, None).await.0 {
        Arrived::As { .. } => false,
        Arrived::NobodyFree => true,
        other => panic!("{other:?} is for those who come back"),
    }
}

async fn post_many(store: &Store, author: &Somebody, room: RoomId, count: usize) {
    for number in 0..count {
        post(store, author, room, &format!("{number}")).await;
    }
}

pub(crate) fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

pub(crate) fn texts(messages: &[Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.text.as_str())
        .collect()
}

/// Waits until the clock shows another time.
async fn later_than_now() {
    let now = Millis::now();
    while now == Millis::now() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn names(people: &[Person]) -> Vec<&str> {
    people
        .iter()
        .map(|person| person.user.name.as_str())
        .collect()
}

/// Handles what expires, as if this much time had passed.
async fn expire_after(store: &Store, passed: Duration) -> Vec<Left> {
    store
        .expire(NODE, Millis::now().after(passed))
        .await
        .unwrap()
}

/// What the store reports about somebody who has left.
fn gone(who: &Somebody, room: Option<RoomId>, last: bool) -> Left {
    Left {
        user: who.user.clone(),
        room,
        last,
    }
}

/// Everything this client tries is refused because it has ended, and changes nothing.
async fn can_do_nothing(store: &Store, who: &Somebody) {
    let (by, client, hi) = (who.here(), who.client, hi(store).await);
    let before = (
        store.newest(hi).await.unwrap(),
        store.census().await.unwrap(),
    );
    let message = before
        .0
        .messages
        .last()
        .map_or(MessageId(1), |last| last.id);
    let post = message_by(NODE, who, hi, "still here", None);
    let (emoji, remove) = (
        Emoji::new("👍").unwrap(),
        ModeratorAction::RemoveGroup { room: hi },
    );
    let text = post.text.clone();
    let name = || GroupName::new("gone").unwrap();
    let called = Some(DisplayName::new("Gone").unwrap());
    let refused = [
        store.post(post).await.err(),
        store.amend(by, hi, message, Some(text)).await.err(),
        store.react(by, hi, message, emoji, true).await.err(),
        store.moderate(by, remove).await.err(),
        store.make_group(by, name()).await.err(),
        store.rename(by, called, 1).await.err(),
        store.private_room(by, "anna").await.err(),
        store.enter(by, Target::Room(hi)).await.err(),
        store.leave_room(client).await.err(),
    ];
    // Leaving its room depends on the client only, which may still be valid.
    let refused = match store.stale_clients(vec![client]).await.unwrap()[..] {
        [] => &refused[..refused.len() - 1],
        _ => &refused[..],
    };
    for refused in refused {
        assert!(matches!(refused, Some(StoreError::Gone)), "{refused:?}");
    }
    let after = (
        store.newest(hi).await.unwrap(),
        store.census().await.unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(store.group("gone", None).await.unwrap(), None);
}

async fn a_client_that_has_ended_can_do_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let room = private(&store, &anna, &bob).await;
    post(&store, &bob, room, "one").await;
    post(&store, &anna, hi(&store).await, "hello").await;
    // A client of somebody else, used with the wrong user.
    let borrowed = Somebody {
        client: bob.client,
        ..anna.clone()
    };
    can_do_nothing(&store, &borrowed).await;
    // A client that was taken over.
    let again = back(&store, &anna).await;
    can_do_nothing(&store, &anna).await;
    // A client that has left without reading anything.
    store.leave(vec![again.client]).await.unwrap();
    can_do_nothing(&store, &again).await;
    let read = |who: &Somebody| vec![(who.client, anna.user.id, room, MessageId(i64::MAX))];
    store.mark_read(read(&borrowed)).await.unwrap();
    assert_eq!(unread(&store, &anna).await, [1]);
    // What was read before is still read after the client has left or was taken over.
    store
        .mark_read([read(&bob), read(&anna)].concat())
        .await
        .unwrap();
    assert_eq!(unread(&store, &anna).await, [0]);
    // A client whose session has ended.
    let session = keep(&store, &bob).await;
    let tab = another(&store, session).await;
    store.sign_out(session).await.unwrap().unwrap();
    can_do_nothing(&store, &tab).await;
    can_do_nothing(&store, &bob).await;
}

async fn a_person_with_several_tabs_joins_and_leaves_a_room_once(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let session = keep(&store, &anna).await;
    let tab = another(&store, session).await;
    let (hi, bob) = (hi(&store).await, arrive(&store, "bob").await);
    let moves = async |who: &Somebody, target: Target| {
        let entered = store.enter(who.here(), target).await.unwrap();
        (entered.1.joined, entered.1.left)
    };
    let (to_hi, to_bob) = (Target::Room(hi), Target::Private("bob".to_owned()));
    let python = || Target::Group("python".to_owned());
    assert_eq!(moves(&bob, to_hi.clone()).await, (true, None));
    assert_eq!(moves(&anna, to_hi.clone()).await, (true, None));
    assert_eq!(moves(&anna, to_hi.clone()).await, (false, None));
    assert_eq!(moves(&tab, to_hi.clone()).await, (false, None));
    assert_eq!(moves(&tab, python()).await, (true, None));
    assert_eq!(moves(&anna, python()).await, (false, Some(hi)));
    let none = Target::Group("none".to_owned());
    assert_eq!(enter(&store, &anna, none).await, Err(Refused::NoSuchRoom));
    assert_eq!(moves(&anna, to_bob.clone()).await, (true, None));
    let room = private(&store, &anna, &bob).await;
    // Returning to the room that it is still in is no join.
    let (again, token) = arrive_by(&store, session, Some((tab.client, tab.token))).await;
    let tab = Somebody::of(again, token);
    assert_eq!(moves(&tab, python()).await, (false, None));
    let python = group(&store, "python").await;
    assert_eq!(moves(&tab, to_bob).await, (false, Some(python)));
    let goes_out = async |who: &Somebody| store.leave_room(who.client).await.unwrap();
    assert_eq!(goes_out(&anna).await, Moved::default());
    let left = Some(room);
    assert_eq!(
        goes_out(&tab).await,
        Moved {
            left,
            ..Moved::default()
        }
    );
    assert_eq!(goes_out(&tab).await, Moved::default());
}

async fn leaving_reports_which_room_was_left(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let session = keep(&store, &anna).await;
    let tabs = [
        another(&store, session).await,
        another(&store, session).await,
    ];
    let hi = hi(&store).await;
    for who in [&anna, &tabs[0], &bob] {
        enter(&store, who, Target::Room(hi)).await.unwrap();
    }
    let leaves = async |who: &[&Somebody]| {
        let clients = who.iter().map(|who| who.client).collect();
        store.leave(clients).await.unwrap()
    };
    assert_eq!(leaves(&[&tabs[1]]).await, [gone(&anna, None, false)]);
    // If several leave at once, only the last one counts as leaving; leaving twice is reported
    // once.
    let left = leaves(&[&anna, &tabs[0], &tabs[1]]).await;
    let last = gone(&anna, Some(hi), true);
    assert_eq!(left, [gone(&anna, None, false), last]);
    assert_eq!(leaves(&[&anna, &tabs[0]]).await, []);
    let former = bob.client;
    let bob = back(&store, &bob).await;
    assert_eq!(store.leave(vec![former]).await.unwrap(), []);
    assert_eq!(leaves(&[&bob]).await, [gone(&bob, Some(hi), true)]);
}

async fn a_node_that_ends_disconnects_its_people_and_they_may_return(backend: &impl Backend) {
    let store = backend.open().await;
    store.renew_lease(NODE).await.unwrap();
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    arrive_on(&store, OTHER_NODE, "carl").await;
    let hi = hi(&store).await;
    for who in [&anna, &bob] {
        enter(&store, who, Target::Room(hi)).await.unwrap();
    }
    // Whoever moved to another node is no longer on this one.
    let moved = store.arrive(returning(OTHER_NODE, bob.client, bob.token));
    assert!(matches!(moved.await.unwrap(), Arrived::As { .. }));
    assert_eq!(
        store.end(NODE).await.unwrap(),
        [gone(&anna, Some(hi), true)]
    );
    assert_eq!(store.end(NODE).await.unwrap(), []);
    let online = store.people_online(9).await.unwrap().0;
    assert_eq!(names(&online), ["bob", "carl"]);
    assert_eq!(back(&store, &anna).await.user, anna.user);
}

async fn clients_that_have_ended_are_reported_as_stale(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = moderator(&store, "anna").await;
    let mut others = Vec::new();
    for name in ["bob", "carl", "dora", "emil", "fay"] {
        others.push(arrive(&store, name).await);
    }
    let [bob, carl, dora, emil, fay] = &others[..] else {
        panic!("five have come");
    };
    let stale = async |of: &[&Somebody]| {
        let clients = of.iter().map(|who| who.client).collect();
        let mut stale = store.stale_clients(clients).await.unwrap();
        stale.sort();
        stale
    };
    let all = [&anna, bob, carl, dora, emil, fay];
    assert_eq!(stale(&all).await, []);
    store.leave(vec![bob.client]).await.unwrap();
    let again = back(&store, carl).await;
    moderate(&store, &anna, ban_of(dora, true)).await;
    let session = keep(&store, emil).await;
    assert_eq!(stale(&[emil, &again]).await, []);
    store.sign_out(session).await.unwrap();
    let [of_bob, of_carl, of_dora, of_emil] = [bob, carl, dora, emil].map(|who| who.client.client);
    assert_eq!(stale(&all).await, [of_bob, of_carl, of_dora, of_emil]);
    assert_eq!(stale(&[&again, fay]).await, []);
    let users = all.iter().map(|who| who.user.id).collect();
    assert_eq!(store.banned(users).await.unwrap(), [dora.user.id]);
    assert_eq!(store.stale_clients(Vec::new()).await.unwrap(), []);
}

async fn every_store_has_an_identity_of_its_own(backend: &impl Backend) {
    let store = backend.open().await;
    let identity = store.identity().await.unwrap();
    store.reset().await.unwrap();
    assert_eq!(store.identity().await.unwrap(), identity);
    store.close().await;
    let copy = backend.copy().await.open().await;
    assert_ne!(copy.identity().await.unwrap(), identity);
}

async fn no_user_is_ever_given_to_two_people(backend: &impl Backend) {
    let seeds: Vec<String> = (0..30).map(|n| format!("seed{n}")).collect();
    let store = seeded(
        backend,
        &seeds.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    let mut arriving = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = Arc::clone(&store);
        arriving.spawn(async move { arrive(&store, &format!("spare{n}")).await });
    }
    let all = arriving.join_all().await;
    let users: HashSet<UserId> = all.iter().map(|somebody| somebody.user.id).collect();
    let seeded = all
        .iter()
        .filter(|somebody| somebody.user.name.starts_with("seed"));
    assert_eq!((users.len(), seeded.count()), (100, 30));
    assert_eq!(store.census().await.unwrap().users, 100);
}

async fn a_newcomer_is_given_a_random_user(backend: &impl Backend) {
    let seeds: Vec<String> = (0..60).map(|n| format!("seed{n:02}")).collect();
    let store = seeded(
        backend,
        &seeds.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    let mut given = Vec::new();
    for _ in 0..30 {
        given.push(arrive(&store, "spare").await.user.name);
    }
    let mut sorted = given.clone();
    sorted.sort();
    assert_ne!(given, sorted);
    // A random half is not the first half.
    assert_ne!(sorted, seeds[..30]);
}

async fn when_no_user_is_free_the_spare_user_is_made(backend: &impl Backend) {
    let store = seeded(backend, &["anna"]).await;
    assert_eq!(arrive(&store, "spare").await.user.name, "anna");
    assert!(nobody_is_free(&store).await);
    let (arrived, _) = try_to_arrive(&store, Some("anna")).await;
    assert_eq!(arrived, Arrived::NobodyFree);
    assert_eq!(arrive(&store, "spare").await.user.name, "spare");
}

async fn a_returning_person_keeps_their_user(backend: &impl Backend) {
    let store = seeded(backend, &["anna", "bob", "carl"]).await;
    let somebody = arrive(&store, "spare").await;
    assert_eq!(
        store.client_by_token(somebody.token, None).await.unwrap(),
        Some((somebody.client, Some(NODE)))
    );
    assert_eq!(store.client_by_token(token(), None).await.unwrap(), None);
    store.leave(vec![somebody.client]).await.unwrap();
    assert!(store.people_online(9).await.unwrap().0.is_empty());

    let (returning, node) = store
        .client_by_token(somebody.token, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node, None, "it has left");
    let arrived = come_back(&store, returning, somebody.token).await;
    let Arrived::As { client, user, .. } = arrived else {
        panic!("{arrived:?}");
    };
    assert_eq!(user, somebody.user);
    assert_eq!(client.client, somebody.client.client);
    assert_eq!(client.visit, somebody.client.visit + 1);
    assert_eq!(
        names(&store.people_online(9).await.unwrap().0),
        [user.name.as_str()]
    );
    // The token is still the old one.
    assert_eq!(
        store.client_by_token(somebody.token, None).await.unwrap(),
        Some((client, Some(NODE)))
    );
}

async fn who_has_left_comes_back_by_the_token_alone(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let by_token = async |token, spare| {
        let arrival = Arrival {
            resume: Some(Resume::Left(token)),
            ..newcomer(NODE, spare)
        };
        let fresh = arrival.token;
        (store.arrive(arrival).await.unwrap(), fresh)
    };
    // While she is connected, her socket has to be asked, and nothing has changed.
    let (arrived, _) = by_token(anna.token, Some("bob")).await;
    assert_eq!(arrived, Arrived::Connected(anna.client, NODE));
    assert_eq!(store.people_online(9).await.unwrap().1, 1);
    store.leave(vec![anna.client]).await.unwrap();

    let (arrived, fresh) = by_token(anna.token, None).await;
    let back = Somebody::of(arrived, anna.token);
    assert_eq!(back.user, anna.user);
    assert_eq!(back.client.client, anna.client.client);
    assert_eq!(back.client.visit, anna.client.visit + 1);
    assert_eq!(store.client_by_token(fresh, None).await.unwrap(), None);
    let known = store.client_by_token(anna.token, None).await.unwrap();
    assert_eq!(known, Some((back.client, Some(NODE))));

    // A token that nobody has makes a newcomer, with a token of their own.
    let (arrived, fresh) = by_token(token(), Some("carl")).await;
    let carl = Somebody::of(arrived, fresh);
    assert_eq!((carl.user.name.as_str(), carl.client.visit), ("carl", 0));
    let known = store.client_by_token(fresh, None).await.unwrap();
    assert_eq!(known, Some((carl.client, Some(NODE))));
}

async fn who_arrives_enters_a_group_at_once(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let (hi, room) = (hi(&store).await, private(&store, &anna, &bob).await);
    let arrive_in = async |arrival: Arrival, target| {
        let arrival = Arrival {
            group: Some(target),
            ..arrival
        };
        let token = arrival.token;
        match store.arrive(arrival).await.unwrap() {
            Arrived::As {
                client,
                user,
                entered,
                ..
            } => {
                let who = Somebody {
                    client,
                    user,
                    token,
                };
                (who, entered)
            }
            other => panic!("{other:?}"),
        }
    };
    let in_hi = Target::Group("HI".to_owned());
    let (carl, entered) = arrive_in(newcomer(NODE, Some("carl")), in_hi).await;
    let (entered, moved) = entered.unwrap();
    assert_eq!(entered.id, hi);
    assert!(moved.joined && moved.is_first && moved.left.is_none());
    assert_eq!(names(&store.people_in(hi, 9).await.unwrap().0), ["carl"]);

    // Whoever takes over a client leaves the room that it shows.
    let python = group(&store, "python").await;
    let taking = returning(NODE, carl.client, carl.token);
    let (carl, entered) = arrive_in(taking, Target::Room(python)).await;
    let (entered, moved) = entered.unwrap();
    assert_eq!((entered.id, moved.left), (python, Some(hi)));
    assert_eq!(
        names(&store.people_in(python, 9).await.unwrap().0),
        ["carl"]
    );
    assert!(store.people_in(hi, 9).await.unwrap().0.is_empty());

    // A private room is entered in a write of its own, and so is none that does not exist.
    store.leave(vec![anna.client]).await.unwrap();
    for target in [
        Target::Room(room),
        Target::Private("bob".to_owned()),
        Target::Room(RoomId(0)),
        Target::Group("nowhere".to_owned()),
    ] {
        let known = store.client_by_token(anna.token, None).await.unwrap();
        let (client, _) = known.unwrap();
        let back = returning(NODE, client, anna.token);
        let (back, entered) = arrive_in(back, target).await;
        assert_eq!((back.user, entered), (anna.user.clone(), None));
    }
    assert!(
        store
            .people_in(room, 9)
            .await
            .unwrap()
            .0
            .iter()
            .all(|one| one.user != anna.user)
    );
    drop(carl);
}

async fn coming_back_needs_the_token(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    for token in [bob.token, token()] {
        let arrived = come_back(&store, anna.client, token).await;
        assert_eq!(arrived, Arrived::Overtaken);
    }
    let arrived = come_back(&store, anna.client, anna.token).await;
    assert!(matches!(arrived, Arrived::As { user, .. } if user == anna.user));
}

async fn when_two_tabs_return_with_one_token_one_is_overtaken(backend: &impl Backend) {
    let store = backend.open().await;
    let somebody = arrive(&store, "anna").await;
    store.leave(vec![somebody.client]).await.unwrap();
    let mut arriving = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (store, somebody) = (Arc::clone(&store), somebody.clone());
        arriving.spawn(async move { come_back(&store, somebody.client, somebody.token).await });
    }
    let arrived = arriving.join_all().await;
    let overtaken = arrived
        .iter()
        .filter(|arrived| **arrived == Arrived::Overtaken);
    assert_eq!(overtaken.count(), 4, "{arrived:?}");
}

async fn a_late_disconnect_does_not_end_the_next_connection(backend: &impl Backend) {
    let store = backend.open().await;
    let former = arrive(&store, "anna").await;
    let arrived = come_back(&store, former.client, former.token).await;
    let Arrived::As { client, .. } = arrived else {
        panic!("{arrived:?}");
    };
    store.leave(vec![former.client]).await.unwrap();
    assert_eq!(names(&store.people_online(9).await.unwrap().0), ["anna"]);
    store.leave(vec![client]).await.unwrap();
    assert!(store.people_online(9).await.unwrap().0.is_empty());
}

async fn an_untouched_user_is_freed_after_a_while_and_not_before(backend: &impl Backend) {
    let store = backend.open().await;
    let somebody = arrive(&store, "anna").await;
    expire_after(&store, 10 * FREE_AFTER).await;
    assert!(nobody_is_free(&store).await, "she is here");
    store.leave(vec![somebody.client]).await.unwrap();
    expire_after(&store, FREE_AFTER - MINUTE).await;
    assert!(nobody_is_free(&store).await, "she may be back");
    expire_after(&store, FREE_AFTER + MINUTE).await;
    let newcomer = arrive(&store, "spare").await;
    assert_eq!(newcomer.user, somebody.user);
    assert!(nobody_is_free(&store).await);
}

async fn giving_a_user_to_somebody_else_ends_the_old_token(backend: &impl Backend) {
    let store = backend.open().await;
    let former = arrive(&store, "anna").await;
    store.leave(vec![former.client]).await.unwrap();
    expire_after(&store, FREE_AFTER + MINUTE).await;
    assert!(
        store
            .client_by_token(former.token, None)
            .await
            .unwrap()
            .is_some()
    );
    let newcomer = arrive(&store, "spare").await;
    assert_eq!(newcomer.user, former.user);
    assert_eq!(
        store.client_by_token(former.token, None).await.unwrap(),
        None
    );
    // A lookup from just before comes too late and does not become the newcomer.
    let arrived = come_back(&store, former.client, former.token).await;
    assert_eq!(arrived, Arrived::Overtaken);
    assert!(
        store
            .client_by_token(newcomer.token, None)
            .await
            .unwrap()
            .is_some()
    );
}

async fn a_person_who_returns_before_their_user_is_given_away_keeps_it(backend: &impl Backend) {
    let store = backend.open().await;
    let somebody = arrive(&store, "anna").await;
    store.leave(vec![somebody.client]).await.unwrap();
    expire_after(&store, FREE_AFTER + MINUTE).await;
    let arrived = come_back(&store, somebody.client, somebody.token).await;
    assert!(matches!(arrived, Arrived::As { user, .. } if user == somebody.user));
    assert!(nobody_is_free(&store).await);
    expire_after(&store, 10 * FREE_AFTER).await;
    assert!(nobody_is_free(&store).await);
}

async fn a_token_is_good_for_a_day(backend: &impl Backend) {
    let store = backend.open().await;
    let somebody = arrive(&store, "anna").await;
    let room = hi(&store).await;
    post(&store, &somebody, room, "hello").await;
    expire_after(&store, 2 * TOKEN_GOOD_FOR).await;
    assert!(
        store
            .client_by_token(somebody.token, None)
            .await
            .unwrap()
            .is_some(),
        "she is here"
    );
    store.leave(vec![somebody.client]).await.unwrap();
    expire_after(&store, TOKEN_GOOD_FOR - MINUTE).await;
    assert!(
        store
            .client_by_token(somebody.token, None)
            .await
            .unwrap()
            .is_some()
    );
    expire_after(&store, TOKEN_GOOD_FOR + MINUTE).await;
    assert_eq!(
        store.client_by_token(somebody.token, None).await.unwrap(),
        None
    );
    let arrived = come_back(&store, somebody.client, somebody.token).await;
    assert_eq!(arrived, Arrived::Overtaken);
}

async fn a_browser_stands_for_its_guests_or_for_the_person_who_signed_in(backend: &impl Backend) {
    let store = backend.open().await;
    let (here, there) = (token(), token());
    let arrive_from = async |browser, name| {
        let arrival = Arrival {
            browser,
            ..newcomer(NODE, Some(name))
        };
        let token = arrival.token;
        Somebody::of(store.arrive(arrival).await.unwrap(), token)
    };
    let stands_for = async |session, browser| {
        let people = store.people_of_browser(session, browser).await.unwrap();
        let names = people.into_iter().map(|user| user.name);
        names.collect::<Vec<_>>().join(" ")
    };
    let anna = arrive_from(Some(here), "anna").await;
    let bob = arrive_from(Some(here), "bob").await;
    let carl = arrive_from(Some(there), "carl").await;
    arrive_from(None, "dora").await;
    assert_eq!(stands_for(None, Some(here)).await, "bob anna");
    assert_eq!(stands_for(None, Some(there)).await, "carl");
    assert_eq!(stands_for(None, Some(token())).await, "");
    assert_eq!(stands_for(None, None).await, "");

    // Only the browser that a tab last connected from counts.
    let moved = Arrival {
        browser: Some(there),
        ..returning(NODE, bob.client, bob.token)
    };
    let bob = Somebody::of(store.arrive(moved).await.unwrap(), bob.token);
    assert_eq!(stands_for(None, Some(here)).await, "anna");
    assert_eq!(stands_for(None, Some(there)).await, "carl bob");

    // Whoever has signed in is that person and nobody else.
    let session = keep(&store, &carl).await;
    assert_eq!(stands_for(Some(session), Some(here)).await, "carl");
    assert_eq!(stands_for(None, Some(there)).await, "bob");
    let banned = ban_of(&bob, true);
    let moderator = arrive(&store, "gus").await;
    promote(&store, &moderator).await;
    moderate(&store, &moderator, banned).await;
    assert_eq!(stands_for(None, Some(there)).await, "");
    store.sign_out(session).await.unwrap();
    assert_eq!(stands_for(Some(session), Some(here)).await, "anna");

    // A guest may come back for a day.
    store.leave(vec![anna.client]).await.unwrap();
    assert_eq!(stands_for(None, Some(here)).await, "anna");
    expire_after(&store, TOKEN_GOOD_FOR + MINUTE).await;
    assert_eq!(stands_for(None, Some(here)).await, "");
}

async fn an_author_is_never_given_to_somebody_else(backend: &impl Backend) {
    let store = backend.open().await;
    let (author, reader) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    post(&store, &author, hi(&store).await, "hello").await;
    store
        .leave(vec![author.client, reader.client])
        .await
        .unwrap();
    expire_after(&store, FREE_AFTER + MINUTE).await;
    expire_after(&store, 2 * TOKEN_GOOD_FOR).await;
    assert_eq!(arrive(&store, "spare").await.user, reader.user);
    assert!(nobody_is_free(&store).await);
}

async fn a_recipient_is_never_given_to_somebody_else(backend: &impl Backend) {
    let store = backend.open().await;
    let (author, reader) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    // Even though they would have been free by then.
    store.leave(vec![reader.client]).await.unwrap();
    expire_after(&store, FREE_AFTER + MINUTE).await;
    let room = private(&store, &author, &reader).await;
    post(&store, &author, room, "hello").await;
    store.leave(vec![author.client]).await.unwrap();
    expire_after(&store, 2 * TOKEN_GOOD_FOR).await;
    expire_after(&store, 3 * TOKEN_GOOD_FOR).await;
    assert!(nobody_is_free(&store).await);
}

async fn a_user_is_not_given_away_while_a_private_room_with_them_is_open(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    store.leave(vec![bob.client]).await.unwrap();
    expire_after(&store, FREE_AFTER + MINUTE).await;
    let room = private(&store, &anna, &bob).await;
    assert!(nobody_is_free(&store).await, "anna looks at bob's room");
    expire_after(&store, 3 * FREE_AFTER).await;
    assert!(nobody_is_free(&store).await, "anna still looks");

    enter(&store, &anna, Target::Group("hi".to_owned()))
        .await
        .unwrap();
    expire_after(&store, 5 * FREE_AFTER).await;
    let newcomer = arrive(&store, "spare").await;
    assert_eq!(newcomer.user, bob.user);
    // The newcomer does not inherit the room that anna had with the former bob.
    let known = enter(&store, &newcomer, Target::Room(room)).await;
    assert_eq!(known, Err(Refused::NoSuchRoom));
    assert_ne!(private(&store, &anna, &newcomer).await, room);
}

async fn an_unused_user_is_not_found(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    store.add_users(vec![new_user("bob")]).await.unwrap();
    assert!(store.find_people("bob", 9).await.unwrap().is_empty());
    let to_bob = || enter(&store, &anna, Target::Private("bob".to_owned()));
    assert_eq!(to_bob().await, Err(Refused::NoSuchRoom));
    arrive(&store, "spare").await;
    assert_eq!(store.find_people("bob", 9).await.unwrap().len(), 1);
    assert!(to_bob().await.is_ok());
}

async fn the_clients_of_a_dead_node_leave_when_its_lease_expires(backend: &impl Backend) {
    let store = backend.open().await;
    store.join(OTHER_NODE).await.unwrap();
    let anna = arrive(&store, "anna").await;
    let bob = arrive_on(&store, OTHER_NODE, "bob").await;
    enter(&store, &bob, Target::Group("hi".into()))
        .await
        .unwrap();
    let room = hi(&store).await;
    assert_eq!(
        expire_after(&store, LEASE - Duration::from_secs(5)).await,
        []
    );
    let online = store.people_online(9).await.unwrap().0;
    assert_eq!(names(&online), ["anna", "bob"]);
    let left = expire_after(&store, LEASE + Duration::from_secs(5)).await;
    assert_eq!(left, [gone(&bob, Some(room), true)]);
    can_do_nothing(&store, &bob).await;
    assert_eq!(names(&store.people_online(9).await.unwrap().0), ["anna"]);
    // Bob has a new socket here; the client of the other node ends only now.
    let arrived = come_back(&store, bob.client, bob.token).await;
    assert!(matches!(arrived, Arrived::As { user, .. } if user.name == "bob"));
    let left = store.leave(vec![anna.client, bob.client]).await.unwrap();
    assert_eq!(left, [gone(&anna, None, true)]);
    assert_eq!(names(&store.people_online(9).await.unwrap().0), ["bob"]);
}

async fn a_restart_disconnects_everybody_and_they_may_return(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    store.close().await;
    let store = backend.open().await;
    assert!(store.people_online(9).await.unwrap().0.is_empty());
    let (returning, _) = store
        .client_by_token(anna.token, None)
        .await
        .unwrap()
        .unwrap();
    let arrived = come_back(&store, returning, anna.token).await;
    assert!(matches!(arrived, Arrived::As { user, .. } if user == anna.user));
    store.close().await;
    // Untouched, and gone since the restart at the latest.
    let store = backend.open().await;
    expire_after(&store, FREE_AFTER + MINUTE).await;
    assert!(!nobody_is_free(&store).await);
}

async fn a_group_is_entered_by_name_or_id(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let group = store.group("python", None).await.unwrap().unwrap();
    for target in [
        Target::Group("python".into()),
        Target::Group("Python".into()),
        Target::Room(group.id),
    ] {
        let entered = enter(&store, &anna, target).await;
        assert_eq!(entered, Ok(group.clone()));
    }
    for target in [
        Target::Group("nowhere".into()),
        Target::Group(String::new()),
        Target::Room(RoomId(7)),
        Target::Private("nobody".into()),
    ] {
        assert_eq!(enter(&store, &anna, target).await, Err(Refused::NoSuchRoom));
    }
    assert_eq!(store.group("nowhere", None).await.unwrap(), None);
}

async fn a_pair_has_one_private_room_whoever_asks_first(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let mut entering = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (me, with) = match n % 2 {
            0 => (anna.clone(), bob.clone()),
            _ => (bob.clone(), anna.clone()),
        };
        let store = Arc::clone(&store);
        entering.spawn(async move {
            let target = Target::Private(with.user.name.to_uppercase());
            match enter(&store, &me, target).await {
                Ok(room) => {
                    assert_eq!(room.kind, RoomKind::Private { with: with.user });
                    room.id
                }
                refused => panic!("{refused:?}"),
            }
        });
    }
    let rooms: HashSet<RoomId> = entering.join_all().await.into_iter().collect();
    assert_eq!(rooms.len(), 1);
    assert_eq!(store.census().await.unwrap().private_rooms, 1);
    // The same room before and after the first message.
    let room = private(&store, &anna, &bob).await;
    post(&store, &bob, room, "hello").await;
    assert_eq!(private(&store, &bob, &anna).await, room);
    let carl = arrive(&store, "carl").await;
    assert_ne!(private(&store, &anna, &carl).await, room);
    let oneself = enter(&store, &anna, Target::Private("anna".into())).await;
    assert_eq!(oneself, Err(Refused::Oneself));
    assert_eq!(store.census().await.unwrap().private_rooms, 2);
}

async fn a_private_room_does_not_exist_for_outsiders(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let carl = arrive(&store, "carl").await;
    let by_id = || Target::Room(room);
    assert_eq!(
        enter(&store, &carl, by_id()).await,
        Err(Refused::NoSuchRoom)
    );
    let refused = try_to_post(&store, &carl, room, "hello", None).await;
    assert_eq!(refused, Err(Refused::NoSuchRoom));
    // The two of them may.
    for insider in [&anna, &bob] {
        let entered = enter(&store, insider, by_id()).await;
        assert!(matches!(entered, Ok(Room { id, .. }) if id == room));
        post(&store, insider, room, "hello").await;
    }
    assert!(store.people_of(carl.user.id, 9).await.unwrap().is_empty());
}

async fn opening_a_private_room_shows_nothing_to_the_other(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    assert!(store.people_of(bob.user.id, 9).await.unwrap().is_empty());
    assert!(store.people_of(anna.user.id, 9).await.unwrap().is_empty());
    post(&store, &anna, room, "hello").await;
    assert_eq!(
        names(&store.people_of(bob.user.id, 9).await.unwrap()),
        ["anna"]
    );
}

async fn a_message_is_stored_as_it_was_written(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let (room, key) = (hi(&store).await, Uuid::new_v4());
    let text = "one\n\ttwo <b>'\"\\ 👩‍👩‍👧 %_";
    let before = Millis::now();
    let posted = try_to_post(&store, &anna, room, text, Some(key)).await;
    let Ok(Posted::New(message)) = posted else {
        panic!("{posted:?}");
    };
    assert_eq!(message.author.id, anna.user.id);
    assert_eq!(message.author.user_name, anna.user.name);
    assert_eq!(message.author.name, "anna");
    assert_eq!((message.room, message.text.as_str()), (room, text));
    assert_eq!((message.made, message.changed), (1, 1));
    assert_eq!(message.key, Some(key));
    assert!(before <= message.created_at && message.created_at <= Millis::now());
    let page = store.newest(room).await.unwrap();
    assert_eq!(page.messages, [message]);
    assert_eq!((page.version.room, page.version.number), (room, 1));
}

async fn a_text_is_stored_as_it_is_shown(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let html = async || {
        let message = store
            .newest(room)
            .await
            .unwrap()
            .messages
            .last()
            .cloned()
            .unwrap();
        message.html
    };
    let message = post_worded(&store, &anna, room, worded("*a*", "<em>a</em>", &[])).await;
    assert_eq!(message.html.as_deref(), Some("<em>a</em>"));
    assert_eq!(html().await, message.html);
    let amended = store.amend(
        anna.here(),
        room,
        message.id,
        Some(worded("*b*", "<em>b</em>", &[])),
    );
    assert_eq!(amended.await.unwrap().html.as_deref(), Some("<em>b</em>"));
    react(&store, &anna, &message, "👍", true).await.unwrap();
    assert_eq!(html().await.as_deref(), Some("<em>b</em>"));
    // An earlier version of the program changes only the text.
    backend.change(message.id, "c").await;
    assert_eq!(html().await, None);
    let amended = store.amend(
        anna.here(),
        room,
        message.id,
        Some(worded("*d*", "<em>d</em>", &[])),
    );
    assert_eq!(amended.await.unwrap().html.as_deref(), Some("<em>d</em>"));
    let deleted = amend(&store, &anna, room, message.id, None).await.unwrap();
    assert_eq!((deleted.html, html().await), (None, None));
}

async fn what_a_text_refers_to_is_found_if_everybody_in_the_room_may_see_it(
    backend: &impl Backend,
) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let carl = arrive(&store, "carl").await;
    store.add_users(vec![new_user("dora")]).await.unwrap();
    for name in ["secret", "open"] {
        store
            .make_group(anna.here(), GroupName::new(name).unwrap())
            .await
            .unwrap();
    }
    let group = async |name: &str| store.group(name, None).await.unwrap().unwrap().id;
    let (secret, open, room) = (group("secret").await, group("open").await, hi(&store).await);
    let restrict = ModeratorAction::RestrictGroup {
        room: secret,
        on: true,
    };
    store.moderate(anna.here(), restrict).await.unwrap();
    let private = store.private_room(anna.here(), "bob").await.unwrap().id;
    rename(&store, &carl, "Carl Lee").await.unwrap();
    let said = [
        post(&store, &anna, secret, "a").await.id,
        post(&store, &anna, open, "a").await.id,
        post(&store, &anna, private, "a").await.id,
    ];
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let sought = Sought {
        people: words(&["bob", "carl", "carl lee", "dora", "nobody", "anna"]),
        groups: words(&["open", "secret", "nothing"]),
        messages: said.to_vec(),
    };
    let found = async |by: &Somebody, room| {
        let found = store
            .referred(by.user.id, room, sought.clone())
            .await
            .unwrap();
        let mut people: Vec<_> = found
            .people
            .iter()
            .map(|(key, (_, may))| (key.clone(), *may))
            .collect();
        people.sort();
        let mut groups: Vec<_> = found.groups.into_values().collect();
        groups.sort();
        let mut messages: Vec<_> = found.messages.into_iter().collect();
        messages.sort();
        (found.is_group, people, groups, messages)
    };
    let everybody = |may: [bool; 3]| {
        let [anna, bob, carl] = may;
        let names = [
            ("anna", anna),
            ("bob", bob),
            ("carl", carl),
            ("carl lee", carl),
        ];
        names.map(|(name, may)| (name.to_owned(), may)).to_vec()
    };
    let here = |group: Option<&str>| (group.map(str::to_owned), "anna".to_owned());
    let expected = (
        true,
        everybody([true; 3]),
        words(&["open"]),
        vec![(said[1], here(Some("open")))],
    );
    assert_eq!(found(&bob, room).await, expected);
    let mut expected = (
        false,
        everybody([true, true, false]),
        words(&["open"]),
        expected.3,
    );
    expected.3.push((said[2], here(None)));
    assert_eq!(found(&bob, private).await, expected);
    let messages = vec![
        (said[0], here(Some("!secret"))),
        (said[1], here(Some("open"))),
    ];
    let expected = (
        true,
        everybody([true, false, false]),
        words(&["open"]),
        messages,
    );
    assert_eq!(found(&anna, secret).await, expected);
    // Who may not see the room finds nothing.
    for hidden in [secret, private] {
        assert_eq!(found(&carl, hidden).await, (false, vec![], vec![], vec![]));
    }
    amend(&store, &anna, open, said[1], None).await.unwrap();
    assert_eq!(found(&bob, room).await.3, []);
}

async fn a_change_names_the_people_whom_the_message_mentions_since_then(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let (carl, room) = (arrive(&store, "carl").await, hi(&store).await);
    let mut mentioned = async || changes.recv().await.unwrap().mentions;
    let none = Mentions::default();
    let message = post_worded(&store, &anna, room, worded("a", "a", &[&bob, &anna, &bob])).await;
    let people = |people: &[&Somebody], here| Mentions {
        people: people.iter().map(|who| who.user.id).collect(),
        here,
        ..Mentions::default()
    };
    let no_longer = |who: &Somebody, mentions| Mentions {
        no_longer: vec![who.user.id],
        ..mentions
    };
    assert_eq!(mentioned().await, people(&[&bob], false));
    let edit = async |text, mentions: &[&Somebody], here| {
        let text = Wording {
            here,
            ..worded(text, text, mentions)
        };
        store
            .amend(anna.here(), room, message.id, Some(text))
            .await
            .unwrap();
    };
    edit("b", &[&bob, &carl], true).await;
    assert_eq!(mentioned().await, people(&[&carl], true));
    edit("c", &[&carl], true).await;
    assert_eq!(mentioned().await, no_longer(&bob, none.clone()));
    edit("d", &[&bob], false).await;
    let no_longer_here = |mentions| Mentions {
        no_longer_here: true,
        ..mentions
    };
    let expected = no_longer_here(no_longer(&carl, people(&[&bob], false)));
    assert_eq!(mentioned().await, expected);
    react(&store, &bob, &message, "👍", true).await.unwrap();
    assert_eq!(mentioned().await, none);
    amend(&store, &anna, room, message.id, None).await.unwrap();
    assert_eq!(mentioned().await, no_longer(&bob, none.clone()));
    let everybody = Wording {
        here: true,
        ..worded("@here", "@here", &[])
    };
    let message = post_worded(&store, &anna, room, everybody).await;
    assert_eq!(mentioned().await, people(&[], true));
    amend(&store, &anna, room, message.id, None).await.unwrap();
    assert_eq!(mentioned().await, no_longer_here(none));
}

async fn a_reply_shows_its_original_and_calls_its_author(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let name = GroupName::new("books").unwrap();
    store.make_group(anna.here(), name).await.unwrap();
    let books = store.group("books", None).await.unwrap().unwrap().id;
    let elsewhere = post(&store, &bob, hi(&store).await, "elsewhere").await;
    let original = post(&store, &bob, books, "first").await;
    post(&store, &bob, books, "between").await;
    let reply = async |by: &Somebody, to: MessageId| {
        let reply_to = Some(to);
        let post = Post {
            reply_to,
            ..message_by(NODE, by, books, "reply", None)
        };
        match store.post(post).await.unwrap() {
            Posted::New(message) => message,
            other => panic!("{other:?}"),
        }
    };
    let no_reply = reply(&anna, elsewhere.id).await;
    assert_eq!(no_reply.reply_to, None);
    let replied = reply(&anna, original.id).await;
    assert_eq!(replied.reply_to, Some(Original::from(&original)));
    assert_eq!(reply(&bob, original.id).await.reply_to, replied.reply_to);
    let among = async |after| {
        let page = store
            .changed_among(books, replied.id, replied.id, after)
            .await;
        page.unwrap().messages
    };
    let version = store.newest(books).await.unwrap().version.number;
    assert_eq!(among(version).await, []);
    let edited = amend(&store, &bob, books, original.id, Some("second")).await;
    let edited = edited.unwrap();
    // The reply is not touched, but shows the new text, and what changed is found by it.
    assert_eq!(among(version).await, std::slice::from_ref(&edited));
    let read = store.newest(books).await.unwrap().messages.clone();
    assert_eq!(read[3].reply_to, Some(Original::from(&edited)));
    assert_eq!(read[3].changed, replied.changed);
    amend(&store, &bob, books, original.id, None).await.unwrap();
    let read = store.newest(books).await.unwrap().messages.clone();
    assert_eq!(read[3].reply_to.as_ref().unwrap().text, None);

    let on = true;
    let restrict = ModeratorAction::RestrictGroup { room: books, on };
    store.moderate(anna.here(), restrict).await.unwrap();
    reply(&anna, original.id).await;
    let mut called = Vec::new();
    while called.len() < 9 {
        let mentions = changes.recv().await.unwrap().mentions;
        called.push(mentions.people);
    }
    // The author of the original, but neither of one's own nor if they may no longer read the room.
    let bob = vec![bob.user.id];
    let nobody = Vec::new;
    let (before, after) = (vec![nobody(); 4], vec![nobody(); 4]);
    assert_eq!(called, [before, vec![bob], after].concat());
}

async fn unread_mentions_are_counted_until_they_are_read(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let room = enter_room(&store, &bob, Target::Group("hi".to_owned())).await;
    let counted = async || {
        let groups = store.groups(Some(bob.user.id), 50).await.unwrap();
        let mut groups = groups.into_iter();
        let listed = groups.find(|listed| listed.group.id == room).unwrap();
        (listed.named, listed.here, listed.read)
    };
    let here = Wording {
        here: true,
        ..worded("@here @bob", "@here @bob", &[&bob])
    };
    let everybody = Wording {
        mentions: Vec::new(),
        ..here.clone()
    };
    let by_name = post_worded(&store, &anna, room, worded("@bob", "@bob", &[&bob])).await;
    let none = MessageId(0);
    assert_eq!(counted().await, (vec![by_name.id], vec![], none));
    let both = post_worded(&store, &anna, room, here).await;
    post_worded(&store, &bob, room, everybody.clone()).await;
    let last = post_worded(&store, &anna, room, everybody).await;
    let sorted = async || {
        let (mut named, mut here, _) = counted().await;
        named.sort();
        here.sort();
        (named, here)
    };
    let named = vec![by_name.id, both.id];
    assert_eq!(sorted().await, (named.clone(), vec![both.id, last.id]));
    // Somebody who has turned the news off is still called by name.
    store.mute_group(bob.here(), room, true).await.unwrap();
    assert_eq!(sorted().await, (named, vec![]));
    store.mute_group(bob.here(), room, false).await.unwrap();
    amend(&store, &anna, room, by_name.id, None).await.unwrap();
    assert_eq!(sorted().await, (vec![both.id], vec![both.id, last.id]));
    amend(&store, &anna, room, both.id, Some("never mind"))
        .await
        .unwrap();
    assert_eq!(sorted().await, (vec![], vec![last.id]));
    let read = |upto| vec![(bob.client, bob.user.id, room, upto)];
    store.mark_read(read(last.id)).await.unwrap();
    assert_eq!(counted().await, (vec![], vec![], last.id));
    store
        .mark_unread(bob.here(), room, by_name.id)
        .await
        .unwrap();
    assert_eq!(sorted().await, (vec![], vec![last.id]));
}

async fn a_message_survives_a_restart(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let key = Some(Uuid::new_v4());
    let posted = try_to_post(&store, &anna, room, "hello", key).await;
    let before = store.newest(room).await.unwrap();
    store.close().await;
    let store = backend.open().await;
    assert_eq!(store.newest(room).await.unwrap(), before);
    let anna = back(&store, &anna).await;
    let again = try_to_post(&store, &anna, room, "other", key).await;
    assert!(matches!((posted, again), (Ok(Posted::New(a)), Ok(Posted::Known(b))) if a == b));
    let next = post(&store, &anna, room, "next").await;
    assert_eq!(next.made, 2);
    assert!(next.id > before.messages[0].id);
}

async fn versions_grow_by_one_and_ids_with_them_when_many_write(backend: &impl Backend) {
    let store = backend.open().await;
    let rooms: Vec<RoomId> = store
        .groups(None, 50)
        .await
        .unwrap()
        .iter()
        .map(|listed| listed.group.id)
        .collect();
    let mut writing = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, rooms) = (Arc::clone(&store), rooms.clone());
        writing.spawn(async move {
            let author = arrive(&store, &format!("author{n}")).await;
            for m in 0..25 {
                let room = rooms[(n + m) % 3];
                post(&store, &author, room, &format!("{n} {m}")).await;
            }
        });
    }
    writing.join_all().await;
    let mut total = 0;
    for room in rooms {
        let (all, version) = whole_room(&store, room).await;
        let made: Vec<u64> = all.iter().map(|message| message.made).collect();
        assert_eq!(made, (1..=version).collect::<Vec<_>>());
        assert!(ids(&all).is_sorted());
        total += made.len();
    }
    assert_eq!(total, 200);
}

/// All messages of a room, read page by page, oldest first, and its version.
pub(crate) async fn whole_room(store: &Store, room: RoomId) -> (Vec<Message>, u64) {
    let mut page = (*store.newest(room).await.unwrap()).clone();
    let version = page.version.number;
    let mut all = page.messages.clone();
    while page.older {
        page = store.older(room, all[0].id).await.unwrap();
        all.splice(0..0, page.messages.clone());
    }
    (all, version)
}

async fn each_node_gets_its_changes_in_the_order_of_their_commits(backend: &impl Backend) {
    let store = backend.open().await;
    let nodes = [NODE, OTHER_NODE];
    let mut streams = Vec::new();
    for node in nodes {
        streams.push(store.join(node).await.unwrap());
    }
    let rooms = [hi(&store).await, group(&store, "python").await];
    let mut writing = tokio::task::JoinSet::new();
    for n in 0..6 {
        let store = Arc::clone(&store);
        writing.spawn(async move {
            let author = arrive(&store, &format!("author{n}")).await;
            for m in 0..20 {
                let (node, room) = (nodes[n % 2], rooms[m % 2]);
                let post = message_by(node, &author, room, "hello", None);
                assert!(matches!(store.post(post).await, Ok(Posted::New(_))));
            }
        });
    }
    writing.join_all().await;
    store.close().await;
    let mut received = [Vec::new(), Vec::new()];
    for (stream, received) in streams.iter_mut().zip(&mut received) {
        // A closed store ends its streams.
        while let Some(change) = stream.recv().await {
            assert_eq!(change.version.number, change.message.made);
            assert_eq!(change.version.room, change.message.room);
            received.push(change.message);
        }
        assert_eq!(received.len(), 60);
        assert!(ids(received).is_sorted());
    }
    let store = backend.open().await;
    for room in rooms {
        let (all, _) = whole_room(&store, room).await;
        let mut of_both: Vec<Message> = received.concat();
        of_both.retain(|message| message.room == room);
        of_both.sort_by_key(|message| message.made);
        assert_eq!(all, of_both);
    }
}

async fn a_change_of_a_private_room_names_the_pair(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let mut changes = store.join(NODE).await.unwrap();
    post(&store, &bob, room, "hello").await;
    post(&store, &bob, hi(&store).await, "hello").await;
    let mut between = changes.recv().await.unwrap().between.unwrap();
    between.sort();
    assert_eq!(between, [anna.user.id, bob.user.id]);
    assert_eq!(changes.recv().await.unwrap().between, None);
}

async fn a_known_key_returns_what_was_stored_first(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let key = Some(Uuid::new_v4());
    let first = try_to_post(&store, &anna, room, "first", key).await;
    let Ok(Posted::New(first)) = first else {
        panic!("{first:?}");
    };
    let elsewhere = group(&store, "python").await;
    for room in [room, elsewhere] {
        let again = try_to_post(&store, &anna, room, "second", key).await;
        assert_eq!(again, Ok(Posted::Known(first.clone())));
    }
    assert_eq!(store.newest(elsewhere).await.unwrap().version.number, 0);
    let next = post(&store, &anna, room, "next").await;
    assert_eq!(next.made, 2);
    assert_eq!(changes.recv().await.unwrap().message, first);
    assert_eq!(changes.recv().await.unwrap().message, next);
}

async fn a_file_goes_with_its_message_and_its_object_with_the_last_file(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let room = hi(&store).await;
    let new = || picture("large");
    let (hers, his) = (new(), new());
    assert!(
        store
            .add_file(anna.user.id, room, hers.clone())
            .await
            .unwrap()
    );
    assert!(
        store
            .add_file(bob.user.id, room, his.clone())
            .await
            .unwrap()
    );
    let with = |author: &Somebody, file: &overwire::store::StoredFile| Post {
        files: vec![file.file.id],
        ..message_by(NODE, author, room, "look", Some(Uuid::new_v4()))
    };
    // Nobody sends the file of somebody else, or one that does not exist.
    for missing in [&his, &new()] {
        let sent = settled(store.post(with(&anna, missing)).await);
        assert_eq!(sent, Err(Refused::NoSuchFile));
    }
    assert_eq!(store.file(hers.file.id, vec![]).await.unwrap(), None);
    let Posted::New(message) = store.post(with(&anna, &hers)).await.unwrap() else {
        panic!("it is new");
    };
    assert_eq!(message.files, std::slice::from_ref(&hers.file));
    assert_eq!(
        store.newest(room).await.unwrap().messages,
        std::slice::from_ref(&message)
    );
    let again = settled(store.post(with(&anna, &hers)).await);
    assert_eq!(again, Err(Refused::NoSuchFile));
    let found = store.file(hers.file.id, vec![]).await.unwrap();
    assert_eq!(found, Some(hers.clone()));

    let deleted = amend(&store, &anna, room, message.id, None).await.unwrap();
    assert_eq!(deleted.files, []);
    assert_eq!(store.file(hers.file.id, vec![]).await.unwrap(), None);
    let unused = async |minutes| {
        let now = Millis::now().after(minutes * MINUTE);
        let mut unused = store.unused_objects(now).await.unwrap();
        unused.sort();
        unused
    };
    let none: [&str; 0] = [];
    // His file has them still, and then they are kept for a moment.
    assert_eq!(unused(3).await, none);
    store.remove_file(his.file.id).await.unwrap();
    assert_eq!(unused(0).await, none);
    assert_eq!(unused(3).await, ["large", "large.jpg"]);
    // While they are being deleted, nobody gets them, and nobody else deletes them.
    assert_eq!(unused(3).await, none);
    assert!(!store.add_file(bob.user.id, room, new()).await.unwrap());
    let both = vec!["large".to_owned(), "large.jpg".to_owned()];
    store.forget_objects(both).await.unwrap();
    assert!(store.add_file(bob.user.id, room, new()).await.unwrap());
    // What is not sent is gone after an hour.
    assert_eq!(unused(59).await, none);
    assert_eq!(unused(63).await, ["large", "large.jpg"]);
}

async fn a_key_sent_many_times_at_once_is_stored_once(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let key = Some(Uuid::new_v4());
    let mut posting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, author) = (Arc::clone(&store), anna.clone());
        posting.spawn(async move { try_to_post(&store, &author, room, "hello", key).await });
    }
    let posted = posting.join_all().await;
    let new = posted
        .iter()
        .filter(|posted| matches!(posted, Ok(Posted::New(_))));
    assert_eq!(new.count(), 1);
    assert_eq!(store.census().await.unwrap().messages, 1);
}

async fn the_same_key_of_another_author_is_another_message(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let (room, key) = (hi(&store).await, Some(Uuid::new_v4()));
    for author in [&anna, &bob] {
        let text = &author.user.name;
        let posted = try_to_post(&store, author, room, text, key).await;
        assert!(matches!(posted, Ok(Posted::New(_))));
    }
    let page = store.newest(room).await.unwrap();
    assert_eq!(texts(&page.messages), ["anna", "bob"]);
}

async fn a_room_accepts_no_message_from_outsiders(backend: &impl Backend) {
    let (store, _, bob, room) = two_in_private(backend).await;
    let carl = arrive(&store, "carl").await;
    for room in [room, RoomId(7)] {
        let refused = try_to_post(&store, &carl, room, "hello", None).await;
        assert_eq!(refused, Err(Refused::NoSuchRoom));
    }
    assert_eq!(store.newest(room).await.unwrap().version.number, 0);
    assert_eq!(post(&store, &bob, room, "hello").await.made, 1);
}

async fn a_refused_message_leaves_nothing_behind(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    // An unknown author cannot have messages, but others in the same batch can.
    let mut posting = tokio::task::JoinSet::new();
    for n in 0..30 {
        let store = Arc::clone(&store);
        let mut post = message_by(NODE, &anna, room, "hello", None);
        if n % 3 == 0 {
            post.by.user = UserId(999);
        }
        posting.spawn(async move {
            let posted = store.post(post).await;
            assert_eq!(posted.is_ok(), n % 3 != 0, "{posted:?}");
        });
    }
    posting.join_all().await;
    let page = store.newest(room).await.unwrap();
    let made: Vec<u64> = page.messages.iter().map(|message| message.made).collect();
    assert_eq!(made, (1..=20).collect::<Vec<_>>());
    assert_eq!(page.version.number, 20);
    for number in 1..=20 {
        assert_eq!(changes.recv().await.unwrap().version.number, number);
    }
}

async fn the_newest_page_has_the_newest_messages_oldest_first(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let page = store.newest(room).await.unwrap();
    assert_eq!(page.version.number, 0);
    assert!(page.messages.is_empty() && !page.older);
    post_many(&store, &anna, room, PAGE_MESSAGES).await;
    let page = store.newest(room).await.unwrap();
    assert_eq!((page.messages.len(), page.older), (PAGE_MESSAGES, false));
    assert_eq!(page.messages[0].text, "0");
    post(&store, &anna, room, "last").await;
    let page = store.newest(room).await.unwrap();
    assert_eq!((page.messages.len(), page.older), (PAGE_MESSAGES, true));
    assert_eq!(page.messages[0].text, "1");
    assert_eq!(page.messages[PAGE_MESSAGES - 1].text, "last");
}

async fn older_pages_reach_the_beginning_without_a_gap(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let elsewhere = group(&store, "python").await;
    for number in 0..2 * PAGE_MESSAGES + 5 {
        post(&store, &anna, room, &number.to_string()).await;
        if number % 7 == 0 {
            post(&store, &anna, elsewhere, "elsewhere").await;
        }
    }
    let newest = store.newest(room).await.unwrap();
    let older = store.older(room, newest.messages[0].id).await.unwrap();
    assert_eq!((older.messages.len(), older.older), (PAGE_MESSAGES, true));
    assert_eq!(older.version, newest.version);
    let oldest = store.older(room, older.messages[0].id).await.unwrap();
    assert_eq!((oldest.messages.len(), oldest.older), (5, false));
    let (all, _) = whole_room(&store, room).await;
    let expected: Vec<String> = (0..2 * PAGE_MESSAGES + 5).map(|n| n.to_string()).collect();
    assert_eq!(texts(&all), expected);
    let before_all = store.older(room, oldest.messages[0].id).await.unwrap();
    assert!(before_all.messages.is_empty() && !before_all.older);
}

async fn a_page_around_a_message_reads_on_in_both_directions(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let other = group(&store, "python").await;
    post(&store, &anna, other, "elsewhere").await;
    post_many(&store, &anna, room, 120).await;
    let (all, _) = whole_room(&store, room).await;
    let texts = |page: &Page| -> Vec<usize> {
        let texts = page.messages.iter().map(|message| message.text.parse());
        texts.map(Result::unwrap).collect()
    };
    let page = store.around(room, all[60].id).await.unwrap();
    assert_eq!(texts(&page), (36..=85).collect::<Vec<_>>());
    assert!(page.older && page.newer);
    let last = page.messages.last().unwrap().id;
    let page = store.newer(room, last, None).await.unwrap();
    assert_eq!(texts(&page), (86..120).collect::<Vec<_>>());
    assert!(!page.newer);
    let between = store
        .newer(room, all[10].id, Some(all[13].id))
        .await
        .unwrap();
    assert_eq!((texts(&between), between.newer), (vec![11, 12], false));
    let first = store.around(room, MessageId(0)).await.unwrap();
    assert_eq!(texts(&first), (0..25).collect::<Vec<_>>());
    assert!(!first.older && first.newer);
    let end = store.around(room, MessageId(i64::MAX)).await.unwrap();
    assert_eq!(texts(&end), (95..120).collect::<Vec<_>>());
    assert!(end.older && !end.newer);
}

async fn a_room_is_found_by_the_time_of_its_messages(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let last_before = async |time| store.last_before(room, Millis(time)).await.unwrap();
    assert_eq!(last_before(i64::MAX).await, None);
    let mut posted = Vec::new();
    for n in 0..20 {
        posted.push(post(&store, &anna, room, &n.to_string()).await);
        post(&store, &anna, group(&store, "python").await, "between").await;
    }
    for message in &posted {
        let time = message.created_at;
        let expected = posted.iter().filter(|one| one.created_at < time);
        let expected = expected.map(|one| one.id).max();
        assert_eq!(last_before(time.0).await, expected);
    }
    assert_eq!(last_before(0).await, None);
    assert_eq!(last_before(i64::MAX).await, Some(posted[19].id));
}

async fn a_page_is_one_consistent_snapshot(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { post_many(&store, &anna, room, 150).await }
    });
    let mut after = None;
    while !writing.is_finished() {
        let page = store.newest(room).await.unwrap();
        let last = page.messages.last().map_or(0, |message| message.made);
        assert_eq!(page.version.number, last);
        if let CatchUp::Changes {
            version, messages, ..
        } = store.catch_up(room, after).await.unwrap()
        {
            assert_eq!(messages.last().unwrap().made, version.number);
        }
        after = Some(page.version);
    }
    writing.await.unwrap();
}

async fn the_versions_of_several_rooms_are_read_at_once(backend: &impl Backend) {
    let store = backend.open().await;
    let (_, room, page) = written(&store, 3).await;
    let elsewhere = group(&store, "python").await;
    let asked = vec![elsewhere, RoomId(7), room];
    let mut versions = store.versions(asked).await.unwrap();
    versions.sort_by_key(|version| version.number);
    let untouched = store.newest(elsewhere).await.unwrap().version;
    assert_eq!(versions, [untouched, page.version]);
    assert_eq!(store.versions(Vec::new()).await.unwrap(), []);
}

/// Somebody who wrote `count` messages into a group, and the newest page.
async fn written(store: &Store, count: usize) -> (Somebody, RoomId, Page) {
    let (anna, room) = (arrive(store, "anna").await, hi(store).await);
    post_many(store, &anna, room, count).await;
    (anna, room, (*store.newest(room).await.unwrap()).clone())
}

async fn catch_up_says_when_there_is_nothing_new(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, page) = written(&store, 0).await;
    let now = store.catch_up(room, Some(page.version)).await.unwrap();
    assert_eq!(now, CatchUp::UpToDate);
    post(&store, &anna, room, "hello").await;
    let page = store.newest(room).await.unwrap();
    let now = store.catch_up(room, Some(page.version)).await.unwrap();
    assert_eq!(now, CatchUp::UpToDate);
}

async fn catch_up_brings_what_is_missing(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, page) = written(&store, 3).await;
    post_many(&store, &anna, room, PAGE_MESSAGES).await;
    let newest = store.newest(room).await.unwrap();
    let rest = store.catch_up(room, Some(page.version)).await.unwrap();
    let expected = CatchUp::Changes {
        after: page.version,
        version: newest.version,
        messages: newest.messages.clone(),
    };
    assert_eq!(rest, expected);
}

async fn catch_up_from_an_empty_room_brings_everything(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, empty) = written(&store, 0).await;
    post_many(&store, &anna, room, 3).await;
    let rest = store.catch_up(room, Some(empty.version)).await.unwrap();
    let CatchUp::Changes {
        after, messages, ..
    } = rest
    else {
        panic!("{rest:?}");
    };
    assert_eq!(after, empty.version);
    assert_eq!(texts(&messages), ["0", "1", "2"]);
}

async fn catch_up_over_more_than_a_page_brings_the_newest_page(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, page) = written(&store, 3).await;
    post_many(&store, &anna, room, PAGE_MESSAGES + 1).await;
    let newest = CatchUp::Newest(store.newest(room).await.unwrap());
    let rest = store.catch_up(room, Some(page.version)).await.unwrap();
    assert_eq!(rest, newest);
    assert_eq!(store.catch_up(room, None).await.unwrap(), newest);
}

async fn catch_up_from_another_rooms_version_brings_the_newest_page(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, page) = written(&store, 5).await;
    let elsewhere = group(&store, "python").await;
    post_many(&store, &anna, elsewhere, 5).await;
    let known = page.version;
    assert_eq!(
        store.catch_up(room, Some(known)).await.unwrap(),
        CatchUp::UpToDate
    );
    let of_elsewhere = store.newest(elsewhere).await.unwrap().version;
    let ahead = Version { number: 6, ..known };
    let unknown = Version {
        history: History(known.history.0 ^ 1),
        number: 3,
        ..known
    };
    let far = Version {
        number: i64::MAX as u64,
        ..known
    };
    for after in [of_elsewhere, ahead, unknown, far] {
        let rest = store.catch_up(room, Some(after)).await.unwrap();
        assert_eq!(rest, CatchUp::Newest(Arc::new(page.clone())), "{after:?}");
    }
}

async fn catch_up_from_another_history_brings_the_newest_page(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, before) = written(&store, 3).await;
    store.close().await;
    let copy = backend.copy().await;

    // The first history goes on to versions 4 and 5.
    let store = backend.open().await;
    post_many(&store, &back(&store, &anna).await, room, 2).await;
    let lost = store.newest(room).await.unwrap();
    let same_life = store.catch_up(room, Some(before.version)).await.unwrap();
    assert!(matches!(same_life, CatchUp::Changes { .. }));
    store.close().await;

    // The copy is at 3 and goes on to 4, 5 and 6 in its own way.
    let store = copy.open().await;
    let newest = || async { CatchUp::Newest(store.newest(room).await.unwrap()) };
    let rest = store.catch_up(room, Some(lost.version)).await.unwrap();
    assert_eq!(rest, newest().await);
    let rest = store.catch_up(room, Some(before.version)).await.unwrap();
    assert_eq!(rest, CatchUp::UpToDate);
    post_many(&store, &back(&store, &anna).await, room, 3).await;
    for number in [4, 5] {
        let after = Version {
            number,
            ..lost.version
        };
        let rest = store.catch_up(room, Some(after)).await.unwrap();
        assert_eq!(rest, newest().await, "{number} of the lost life");
        let never = Version {
            number,
            ..before.version
        };
        let rest = store.catch_up(room, Some(never)).await.unwrap();
        assert_eq!(rest, newest().await, "{number} never was in the first life");
    }
    let rest = store.catch_up(room, Some(before.version)).await.unwrap();
    assert!(matches!(rest, CatchUp::Changes { messages, .. } if messages.len() == 3));
}

async fn catch_up_includes_changed_messages(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, page) = written(&store, 3).await;
    backend.change(page.messages[1].id, "changed").await;
    post(&store, &anna, room, "new").await;
    let rest = store.catch_up(room, Some(page.version)).await.unwrap();
    let CatchUp::Changes {
        after,
        version,
        messages,
    } = rest
    else {
        panic!("{rest:?}");
    };
    assert_eq!((after.number, version.number), (3, 5));
    assert_eq!(texts(&messages), ["changed", "new"]);
    let steps: Vec<_> = messages.iter().map(|m| (m.made, m.changed)).collect();
    assert_eq!(steps, [(2, 4), (5, 5)]);
    // A tab that has the change gets only the new message.
    let after = Version {
        number: 4,
        ..page.version
    };
    let rest = store.catch_up(room, Some(after)).await.unwrap();
    assert!(matches!(rest, CatchUp::Changes { messages, .. } if texts(&messages) == ["new"]));
}

async fn changes_among_older_messages_are_found_by_their_first_and_last(backend: &impl Backend) {
    let store = backend.open().await;
    let (_, room, page) = written(&store, 6).await;
    let id = |n: usize| page.messages[n].id;
    for n in [0, 2, 4] {
        backend.change(id(n), "changed").await;
    }
    let among = |first, last, after| store.changed_among(room, id(first), id(last), after);
    let found = among(1, 4, page.version.number).await.unwrap();
    assert_eq!(ids(&found.messages), [id(2), id(4)]);
    assert_eq!(found.version.number, 9);
    assert_eq!(
        among(0, 0, 6).await.unwrap().messages[0].text,
        "changed",
        "both ends count"
    );
    assert_eq!(ids(&among(0, 5, 7).await.unwrap().messages), [id(2), id(4)]);
    assert!(among(0, 5, 9).await.unwrap().messages.is_empty());
}

async fn unread(store: &Store, me: &Somebody) -> Vec<u32> {
    let people = store.people_of(me.user.id, 9).await.unwrap();
    people.iter().map(|person| person.unread).collect()
}

async fn only_its_author_edits_and_deletes_a_message(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let mut changes = store.join(NODE).await.unwrap();
    let carl = arrive(&store, "carl").await;
    let hi = hi(&store).await;
    let one = post(&store, &anna, room, "one").await;
    post(&store, &bob, room, "two").await;
    for (who, room, message, expected) in [
        (&bob, room, one.id, Err(Refused::NotYours)),
        (&carl, room, one.id, Err(Refused::NoSuchMessage)),
        (&anna, hi, one.id, Err(Refused::NoSuchMessage)),
        (&anna, room, MessageId(999), Err(Refused::NoSuchMessage)),
    ] {
        for text in [Some("mine"), None] {
            assert_eq!(amend(&store, who, room, message, text).await, expected);
        }
    }

    let edited = amend(&store, &anna, room, one.id, Some("uno")).await;
    let expected = Message {
        text: "uno".to_owned(),
        changed: 3,
        worded: 3,
        edited: true,
        ..one.clone()
    };
    assert_eq!(edited, Ok(expected.clone()));
    let page = store.newest(room).await.unwrap();
    assert_eq!(
        (texts(&page.messages), page.version.number),
        (vec!["uno", "two"], 3)
    );

    let deleted = amend(&store, &anna, room, one.id, None).await;
    let gone = Message {
        text: String::new(),
        changed: 4,
        worded: 4,
        deleted: true,
        ..expected.clone()
    };
    assert_eq!(deleted, Ok(gone.clone()));
    assert_eq!(store.newest(room).await.unwrap().messages[0], gone);
    // Both changes arrive in order, for the same pair as the message.
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(changes.recv().await.unwrap());
    }
    assert_eq!(received[2].message, expected);
    assert_eq!(received[3].message, gone);
    assert_eq!(received[3].version.number, 4);
    assert_eq!(received[3].between, received[0].between);
}

async fn amending_without_a_difference_changes_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let room = hi(&store).await;
    let one = post(&store, &anna, room, "one").await;
    let same = amend(&store, &anna, room, one.id, Some("one")).await;
    assert_eq!(same, Ok(one.clone()));
    amend(&store, &anna, room, one.id, None).await.unwrap();
    for _ in 0..2 {
        let again = amend(&store, &anna, room, one.id, None).await;
        assert!(matches!(again, Ok(gone) if gone.deleted));
        let edited = amend(&store, &anna, room, one.id, Some("two")).await;
        assert_eq!(edited, Err(Refused::Deleted));
    }
    assert_eq!(store.newest(room).await.unwrap().version.number, 2);
}

async fn a_deleted_message_is_no_longer_unread(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let mut all = Vec::new();
    for text in ["0", "1", "2", "3"] {
        all.push(post(&store, &anna, room, text).await.id);
    }
    let seen = async |message| {
        let seen = vec![(bob.client, bob.user.id, room, message)];
        store.mark_read(seen).await.unwrap();
    };
    seen(all[0]).await;
    assert_eq!(unread(&store, &bob).await, [3]);
    amend(&store, &anna, room, all[0], None).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [3]);
    amend(&store, &anna, room, all[2], None).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [2]);
    assert_eq!(unread(&store, &anna).await, [0]);
    seen(all[1]).await;
    assert_eq!(unread(&store, &bob).await, [1]);
    // Even though more than the maximum were unread.
    let many: Vec<_> = {
        post_many(&store, &anna, room, 150).await;
        let (all, _) = whole_room(&store, room).await;
        all.into_iter().rev().take(150).collect()
    };
    for message in &many[..100] {
        amend(&store, &anna, room, message.id, None).await.unwrap();
    }
    assert_eq!(unread(&store, &bob).await, [51]);
}

fn reaction(emoji: &str, count: u64, names: &[&str]) -> Reaction {
    Reaction {
        emoji: Emoji::new(emoji).unwrap(),
        count,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

async fn a_reaction_changes_its_message_once(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let mut changes = store.join(NODE).await.unwrap();
    let one = post(&store, &anna, room, "one").await;
    let steps = [
        (&bob, "👍", true, vec![reaction("👍", 1, &["bob"])]),
        (
            &anna,
            "🎉",
            true,
            vec![reaction("👍", 1, &["bob"]), reaction("🎉", 1, &["anna"])],
        ),
        (
            &anna,
            "👍",
            true,
            vec![
                reaction("👍", 2, &["bob", "anna"]),
                reaction("🎉", 1, &["anna"]),
            ],
        ),
        (
            &bob,
            "👍",
            false,
            vec![reaction("👍", 1, &["anna"]), reaction("🎉", 1, &["anna"])],
        ),
        (&anna, "👍", false, vec![reaction("🎉", 1, &["anna"])]),
        (&anna, "🎉", false, vec![]),
    ];
    for (number, (who, emoji, on, reactions)) in (2..).zip(steps) {
        assert_eq!(react(&store, who, &one, emoji, on).await, Ok(true));
        assert_eq!(react(&store, who, &one, emoji, on).await, Ok(false));
        let page = store.newest(room).await.unwrap();
        let expected = Message {
            changed: number,
            reactions,
            ..one.clone()
        };
        assert_eq!(page.version.number, number);
        assert_eq!(page.messages, [expected]);
    }
    for number in 1..=7 {
        let change = changes.recv().await.unwrap();
        assert_eq!(change.version.number, number);
        assert_eq!(
            change.message.reactions.is_empty(),
            [1, 7].contains(&number)
        );
        assert!(change.between.is_some());
    }
}

async fn all_reactions_are_counted_and_the_first_people_named(backend: &impl Backend) {
    let store = backend.open().await;
    let hi = hi(&store).await;
    let mut all = Vec::new();
    for letter in 'a'..='o' {
        all.push(arrive(&store, &letter.to_string()).await);
    }
    let one = post(&store, &all[0], hi, "one").await;
    for somebody in &all {
        react(&store, somebody, &one, "👍", true).await.unwrap();
    }
    let shown = async || {
        store.newest(hi).await.unwrap().messages[0]
            .reactions
            .clone()
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    assert_eq!(shown().await, [reaction("👍", 15, &names)]);
    react(&store, &all[2], &one, "👍", false).await.unwrap();
    let names = ["a", "b", "d", "e", "f", "g", "h", "i", "j", "k"];
    assert_eq!(shown().await, [reaction("👍", 14, &names)]);

    // The full list is longer, with the names of that time.
    let called = DisplayName::new("Ada").unwrap();
    store.rename(all[0].here(), Some(called), 1).await.unwrap();
    react(&store, &all[0], &one, "❤️", true).await.unwrap();
    let opened = async |limit| {
        let (message, names) = store
            .open_message(all[0].user.id, hi, one.id, limit)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.id, one.id);
        let names: Vec<_> = names
            .into_iter()
            .map(|(emoji, name)| format!("{}{name}", emoji.as_str()))
            .collect();
        names
    };
    assert_eq!(opened(2).await, ["👍a", "👍b"]);
    let all = opened(100).await;
    assert_eq!((all.len(), all.last().unwrap().as_str()), (15, "❤️Ada"));
}

async fn outsiders_cannot_react_to_a_message(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let (carl, hi) = (arrive(&store, "carl").await, hi(&store).await);
    let one = post(&store, &anna, room, "one").await;
    let elsewhere = Message {
        room: hi,
        ..one.clone()
    };
    for (who, message) in [(&carl, &one), (&carl, &elsewhere), (&bob, &elsewhere)] {
        let refused = react(&store, who, message, "👍", true).await;
        assert_eq!(refused, Err(Refused::NoSuchMessage));
        let (user, room) = (who.user.id, message.room);
        let opened = store.open_message(user, room, message.id, 9).await.unwrap();
        assert_eq!(opened, None);
    }
    let opened = store
        .open_message(bob.user.id, room, one.id, 9)
        .await
        .unwrap();
    assert_eq!(opened, Some((one.clone(), vec![])));
    // A deleted message takes no reactions and shows none.
    react(&store, &bob, &one, "👍", true).await.unwrap();
    amend(&store, &anna, room, one.id, None).await.unwrap();
    assert_eq!(
        react(&store, &bob, &one, "👍", true).await,
        Err(Refused::Deleted)
    );
    let page = store.newest(room).await.unwrap();
    assert_eq!(page.version.number, 3);
    assert!(page.messages[0].reactions.is_empty());
}

async fn the_different_reactions_to_a_message_are_limited(backend: &impl Backend) {
    let store = backend.open().await;
    let hi = hi(&store).await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let one = post(&store, &anna, hi, "one").await;
    let emojis = [
        "😀", "😃", "😄", "😁", "😆", "😅", "🤣", "😂", "🙂", "🙃", "🫠", "😉", "😊", "😇", "🥰",
        "😍", "🤩", "😘", "😗", "😚",
    ];
    assert_eq!(emojis.len(), Reaction::EMOJIS);
    for emoji in emojis {
        assert_eq!(react(&store, &anna, &one, emoji, true).await, Ok(true));
    }
    assert_eq!(
        react(&store, &bob, &one, "👍", true).await,
        Err(Refused::TooManyEmojis)
    );
    assert_eq!(react(&store, &bob, &one, "👍", false).await, Ok(false));
    assert_eq!(react(&store, &bob, &one, "😀", true).await, Ok(true));
    assert_eq!(react(&store, &anna, &one, "😃", false).await, Ok(true));
    assert_eq!(react(&store, &bob, &one, "👍", true).await, Ok(true));
}

async fn ones_own_reactions_are_listed_newest_first(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let hi = hi(&store).await;
    let mut ids = Vec::new();
    for text in ["0", "1", "2", "3"] {
        let message = post(&store, &anna, hi, text).await;
        react(&store, &bob, &message, "👍", true).await.unwrap();
        react(&store, &anna, &message, "🎉", true).await.unwrap();
        ids.push(message.id);
    }
    let elsewhere = post(&store, &anna, room, "elsewhere").await;
    react(&store, &bob, &elsewhere, "👍", true).await.unwrap();
    let of = async |who: &Somebody, first, last, limit| {
        let mine = store.reactions_of(who.user.id, hi, first, last, limit);
        mine.await.unwrap()
    };
    let thumb = Emoji::new("👍").unwrap();
    let (first, last) = (MessageId(0), MessageId(i64::MAX));
    let mine = of(&bob, first, last, 3).await;
    assert_eq!(mine, [(ids[3], thumb), (ids[2], thumb), (ids[1], thumb)]);
    let mine = of(&bob, ids[1], ids[2], 9).await;
    assert_eq!(mine, [(ids[2], thumb), (ids[1], thumb)]);
    assert_eq!(of(&anna, first, last, 9).await.len(), 4);
}

async fn a_user_who_reacted_is_never_given_to_somebody_else(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    store.add_users(vec![new_user("bob")]).await.unwrap();
    let one = post(&store, &anna, hi(&store).await, "one").await;
    let (arrived, token) = try_to_arrive(&store, None).await;
    let bob = Somebody::of(arrived, token);
    react(&store, &bob, &one, "👍", true).await.unwrap();
    store.leave(vec![bob.client]).await.unwrap();
    expire_after(&store, 2 * FREE_AFTER).await;
    assert!(nobody_is_free(&store).await);
}

async fn a_private_room_is_found_without_entering_it(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let hi = hi(&store).await;
    enter(&store, &anna, Target::Room(hi)).await.unwrap();
    let room = store.private_room(anna.here(), "Bob").await.unwrap();
    assert_eq!(names(&store.people_in(hi, 9).await.unwrap().0), ["anna"]);
    assert_eq!(private(&store, &bob, &anna).await, room.id);
    for (name, expected) in [("anna", Refused::Oneself), ("nobody", Refused::NoSuchRoom)] {
        let found = store.private_room(anna.here(), name).await;
        assert_eq!(settled(found), Err(expected));
    }
}

async fn unread_messages_are_counted_until_they_are_read(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let first = post(&store, &anna, room, "1").await;
    let second = post(&store, &anna, room, "2").await;
    assert_eq!(unread(&store, &bob).await, [2]);
    assert_eq!(unread(&store, &anna).await, [0]);
    let seen = |who: &Somebody, upto| store.mark_read(vec![(who.client, who.user.id, room, upto)]);
    // Other people's messages change nothing.
    let carl = arrive(&store, "carl").await;
    seen(&carl, second.id).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [2]);
    seen(&bob, first.id).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [1]);
    // Answering is not reading: it may be a command from another room.
    post(&store, &bob, room, "3").await;
    assert_eq!(unread(&store, &bob).await, [1]);
    assert_eq!(unread(&store, &anna).await, [1]);
    post_many(&store, &anna, room, 105).await;
    assert_eq!(unread(&store, &bob).await, [100]);
    let (all, _) = whole_room(&store, room).await;
    seen(&bob, all[all.len() - 2].id).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [1]);
}

async fn a_read_message_never_becomes_unread_again(backend: &impl Backend) {
    let (store, anna, bob, room) = two_in_private(backend).await;
    let first = post(&store, &anna, room, "1").await;
    let second = post(&store, &anna, room, "2").await;
    let seen = |upto| store.mark_read(vec![(bob.client, bob.user.id, room, upto)]);
    seen(second.id).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [0]);
    seen(first.id).await.unwrap();
    assert_eq!(unread(&store, &bob).await, [0]);
    // A message that does not exist yet cannot be read.
    seen(MessageId(i64::MAX)).await.unwrap();
    post(&store, &anna, room, "3").await;
    assert_eq!(unread(&store, &bob).await, [1]);
}

/// How a group is listed for somebody: whether they belong to it, and whether it is unread.
async fn listed(store: &Store, who: &Somebody, room: RoomId) -> Option<(bool, bool)> {
    let groups = store.groups(Some(who.user.id), 50).await.unwrap();
    let found = groups.iter().find(|listed| listed.group.id == room)?;
    Some((found.joined, found.unread))
}

async fn a_group_is_unread_from_the_words_of_others_on(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let room = hi(&store).await;
    let seen = |who: &Somebody, upto| store.mark_read(vec![(who.client, who.user.id, room, upto)]);
    post(&store, &anna, room, "before bob").await;
    assert_eq!(listed(&store, &bob, room).await, Some((false, false)));
    enter(&store, &bob, Target::Room(room)).await.unwrap();
    assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
    post(&store, &bob, room, "his own").await;
    assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
    let news = post(&store, &anna, room, "news").await;
    assert_eq!(listed(&store, &bob, room).await, Some((true, true)));
    assert_eq!(
        store.unread_rooms(bob.user.id).await.unwrap(),
        [(room, news.id)]
    );
    assert!(seen(&bob, news.id).await.unwrap().is_empty(), "no number");
    assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
    assert_eq!(store.unread_rooms(bob.user.id).await.unwrap(), []);
    // Nobody reads ahead.
    seen(&bob, MessageId(i64::MAX)).await.unwrap();
    let more = post(&store, &anna, room, "more").await;
    assert_eq!(listed(&store, &bob, room).await, Some((true, true)));
    amend(&store, &anna, room, more.id, None).await.unwrap();
    assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
}

async fn a_room_is_unread_again_from_a_message_on(backend: &impl Backend) {
    let (store, anna, bob, private) = two_in_private(backend).await;
    let group = hi(&store).await;
    enter(&store, &bob, Target::Room(group)).await.unwrap();
    for room in [private, group] {
        let first = post(&store, &anna, room, "1").await;
        let last = post(&store, &anna, room, "2").await;
        let seen = vec![(bob.client, bob.user.id, room, last.id)];
        store.mark_read(seen).await.unwrap();
        assert_eq!(store.unread_rooms(bob.user.id).await.unwrap(), []);
        let again = |who: &Somebody, room| store.mark_unread(who.here(), room, first.id);
        again(&bob, room).await.unwrap();
        assert_eq!(
            store.unread_rooms(bob.user.id).await.unwrap(),
            [(room, last.id)]
        );
        store.enter(bob.here(), Target::Room(room)).await.unwrap();
        let own = store.own(bob.client, bob.user.id, (room, None), 9, 9);
        assert_eq!(own.await.unwrap().0.read, MessageId(first.id.0 - 1));
        let carl = arrive(&store, &format!("carl{}", room.0.unsigned_abs())).await;
        if room == private {
            assert_eq!(unread(&store, &bob).await, [2]);
            let refused = settled(again(&carl, room).await);
            assert_eq!(refused, Err(Refused::NoSuchMessage));
        }
        let seen = vec![(bob.client, bob.user.id, room, last.id)];
        store.mark_read(seen).await.unwrap();
    }
}

async fn a_group_is_listed_until_it_is_left(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let apes = make_group(&store, &anna, "apes").await;
    for room in [hi(&store).await, apes] {
        enter(&store, &bob, Target::Room(room)).await.unwrap();
        assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
        store.leave_group(bob.here(), room).await.unwrap();
        assert_eq!(listed(&store, &bob, room).await, None);
        assert_eq!(listed(&store, &anna, apes).await, Some((true, false)));
        post(&store, &anna, room, "while bob is away").await;
        enter(&store, &bob, Target::Room(room)).await.unwrap();
        assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
    }
}

async fn a_group_that_is_muted_says_so(backend: &impl Backend) {
    let store = backend.open().await;
    let bob = arrive(&store, "bob").await;
    let room = hi(&store).await;
    enter(&store, &bob, Target::Room(room)).await.unwrap();
    for on in [true, false] {
        store.mute_group(bob.here(), room, on).await.unwrap();
        assert_eq!(store.is_muted(bob.user.id, room).await.unwrap(), on);
        let groups = store.groups(Some(bob.user.id), 50).await.unwrap();
        assert_eq!(groups[0].muted, on);
        assert!(!groups[1].muted);
    }
}

async fn people_are_notified_who_want_it_now_and_do_not_look(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let sets = async |change| {
        store
            .change_notifications(anna.here(), change)
            .await
            .unwrap();
    };
    let settings = async || {
        let users = vec![bob.user.id, anna.user.id];
        let settings = store.notifications(users).await.unwrap();
        assert!(settings.iter().all(|(user, _)| *user == anna.user.id));
        settings.into_iter().next().map(|(_, settings)| settings)
    };
    let is_notified_by = async |node| {
        let users = vec![bob.user.id, anna.user.id];
        let users = store.to_notify(users, node).await.unwrap();
        assert!(!users.contains(&bob.user.id));
        users.contains(&anna.user.id)
    };
    sets(NotificationsChange::Sounds(true)).await;
    assert_eq!(settings().await, None);
    assert!(!is_notified_by(NODE).await);
    for _ in 0..2 {
        sets(NotificationsChange::On(true)).await;
        assert_eq!(settings().await, Some(Notifications::default()));
    }
    assert!(is_notified_by(NODE).await);
    sets(NotificationsChange::Sounds(true)).await;
    for span in [MINUTE, Notifications::FOR_GOOD] {
        sets(NotificationsChange::Quiet(Some(span))).await;
        let quiet = settings().await.unwrap();
        assert!(quiet.sounds);
        assert_eq!(
            quiet.quiet_until == Some(Millis::MAX),
            span == Notifications::FOR_GOOD
        );
        assert!(!is_notified_by(NODE).await);
    }
    for over in [Some(Duration::ZERO), None] {
        sets(NotificationsChange::Quiet(over)).await;
        assert_eq!(settings().await.unwrap().quiet_until, None);
        assert!(is_notified_by(NODE).await);
    }

    // She looks at a tab that the other node cannot see.
    let looks = async |who: &Somebody, on| {
        let looks = vec![(who.client, anna.user.id, on)];
        store.note_in_view(looks).await.unwrap();
    };
    for on in [true, true, false, false, true] {
        looks(&anna, on).await;
        assert_eq!(is_notified_by(OTHER_NODE).await, !on);
        assert!(is_notified_by(NODE).await, "it knows that itself");
    }
    // It is not known whether she looks at the tab that she comes back with.
    let again = back(&store, &anna).await;
    assert!(is_notified_by(OTHER_NODE).await);
    looks(&anna, true).await;
    assert!(is_notified_by(OTHER_NODE).await);
    looks(&again, true).await;
    assert!(!is_notified_by(OTHER_NODE).await);
    looks(&anna, false).await;
    assert!(!is_notified_by(OTHER_NODE).await);
    store.leave(vec![again.client]).await.unwrap();
    assert!(is_notified_by(OTHER_NODE).await);
    let gone = store.change_notifications(again.here(), NotificationsChange::On(false));
    assert!(matches!(gone.await, Err(StoreError::Gone)));
    let here = back(&store, &again).await;
    let off = NotificationsChange::On(false);
    store.change_notifications(here.here(), off).await.unwrap();
    assert_eq!(settings().await, None);
}

async fn a_browser_is_subscribed_until_its_session_ends(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let to = |name: &str| PushSubscription {
        endpoint: format!("https://push.example/{name}"),
        p256dh: vec![4; 65],
        auth: vec![0, 255],
    };
    let subscribes = async |who: &Somebody, name: &str| {
        store.subscribe(who.here(), to(name)).await.unwrap();
    };
    let subscribed = async |who: &Somebody| {
        let found = store.subscriptions(vec![who.user.id]).await.unwrap();
        let found = found.into_iter().map(|(user, subscription)| {
            let name = subscription.endpoint.rsplit_once('/').unwrap().1.to_owned();
            assert_eq!((user, &subscription), (who.user.id, &to(&name)));
            name
        });
        found.collect::<HashSet<_>>()
    };
    let on = NotificationsChange::On(true);
    let names = |names: &[&str]| HashSet::from_iter(names.iter().map(ToString::to_string));
    store.change_notifications(bob.here(), on).await.unwrap();
    subscribes(&bob, "guest").await;
    assert_eq!(subscribed(&bob).await, names(&[]));
    keep(&store, &bob).await;
    let session = keep(&store, &anna).await;
    subscribes(&anna, "off").await;
    assert_eq!(subscribed(&anna).await, names(&[]));
    store.change_notifications(anna.here(), on).await.unwrap();
    for name in ["first", "second", "second"] {
        subscribes(&anna, name).await;
        assert_eq!(subscribed(&anna).await, names(&[name]));
    }
    // The browser is somebody else's now.
    subscribes(&bob, "second").await;
    assert_eq!(subscribed(&anna).await, names(&[]));
    assert_eq!(subscribed(&bob).await, names(&["second"]));
    store.unsubscribe(to("second").endpoint).await.unwrap();
    assert_eq!(subscribed(&bob).await, names(&[]));

    // Ten browsers, of which the oldest gives way.
    subscribes(&anna, "0").await;
    let mut sessions = vec![session];
    for n in 1..=10 {
        let session = sign_in(&store, &anna.user).await;
        sessions.push(session);
        let browser = another(&store, session).await;
        subscribes(&browser, &n.to_string()).await;
    }
    let ten: HashSet<_> = (1..=10).map(|n: u32| n.to_string()).collect();
    assert_eq!(subscribed(&anna).await, ten);
    store.sign_out(sessions[10]).await.unwrap();
    assert_eq!(subscribed(&anna).await.len(), 9);
    let off = NotificationsChange::On(false);
    store.change_notifications(anna.here(), off).await.unwrap();
    store.change_notifications(anna.here(), on).await.unwrap();
    assert_eq!(subscribed(&anna).await, names(&[]));
}

async fn the_first_push_key_stays(backend: &impl Backend) {
    let store = backend.open().await;
    for key in [b"one", b"two"] {
        let key = store.push_key(key.to_vec()).await.unwrap();
        assert_eq!(key, b"one");
    }
}

async fn the_creator_of_a_group_and_moderators_set_its_topic(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let carl = arrive(&store, "carl").await;
    let apes = make_group(&store, &anna, "apes").await;
    keep(&store, &carl).await;
    promote(&store, &carl).await;
    let topic = |text: &str| Topic::new(text).unwrap();
    let sets =
        async |who: &Somebody, text| settled(store.set_topic(who.here(), apes, topic(text)).await);
    let read = async |who: &Somebody| store.topic(who.user.id, apes).await.unwrap();
    assert_eq!(read(&anna).await, (None, true));
    sets(&anna, " all  about\napes ").await.unwrap();
    let all = Some("all about apes".to_owned());
    assert_eq!(read(&bob).await, (all, false));
    assert_eq!(sets(&bob, "mine").await, Err(Refused::NotMaker));
    let log = async || {
        let entries = store.audit_log(i64::MAX, 50).await.unwrap();
        let actions = entries.into_iter().map(|entry| entry.words);
        actions.collect::<Vec<_>>()
    };
    assert!(log().await.iter().all(|action| !action.contains("topic")));
    for _ in 0..2 {
        sets(&carl, "").await.unwrap();
    }
    assert_eq!(read(&carl).await, (None, true));
    let actions = log().await;
    let changes = actions.iter().filter(|action| action.contains("topic"));
    assert_eq!(changes.collect::<Vec<_>>(), ["changed the topic of #apes"]);
    let groups = store.busiest_groups(50).await.unwrap();
    assert!(
        groups
            .iter()
            .any(|busy| busy.group.id == apes && busy.topic.is_none())
    );
}

async fn a_user_given_to_a_newcomer_belongs_to_no_group(backend: &impl Backend) {
    let store = backend.open().await;
    let bob = arrive(&store, "bob").await;
    let room = hi(&store).await;
    enter(&store, &bob, Target::Room(room)).await.unwrap();
    assert_eq!(listed(&store, &bob, room).await, Some((true, false)));
    store.leave(vec![bob.client]).await.unwrap();
    let later = Millis::now().after(FREE_AFTER + MINUTE);
    store.expire(NODE, later).await.unwrap();
    let newcomer = arrive(&store, "carl").await;
    assert_eq!(newcomer.user.id, bob.user.id, "bob's user is free");
    assert_eq!(listed(&store, &newcomer, room).await, Some((false, false)));
}

async fn people_in_a_group_are_listed_and_counted(backend: &impl Backend) {
    #[track_caller]
    fn check((people, count): (Vec<Person>, u64), expected: &[&str]) {
        assert_eq!(names(&people), expected);
        assert_eq!(count, expected.len() as u64);
    }
    let store = backend.open().await;
    let hi = hi(&store).await;
    let python = group(&store, "python").await;
    let people_in = async |room| store.people_in(room, 9).await.unwrap();
    let mut all = Vec::new();
    for name in ["dora", "anna", "carl"] {
        let somebody = arrive(&store, name).await;
        enter(&store, &somebody, Target::Room(hi)).await.unwrap();
        all.push(somebody);
    }
    check(people_in(hi).await, &["dora", "anna", "carl"]);
    let (two, count) = store.people_in(hi, 2).await.unwrap();
    assert_eq!((names(&two), count), (vec!["dora", "anna"], 3));

    // Entering the same room again changes nothing. Whoever leaves and returns is at the end.
    enter(&store, &all[0], Target::Room(hi)).await.unwrap();
    check(people_in(hi).await, &["dora", "anna", "carl"]);
    enter(&store, &all[0], Target::Room(python)).await.unwrap();
    check(people_in(hi).await, &["anna", "carl"]);
    check(people_in(python).await, &["dora"]);
    later_than_now().await;
    enter(&store, &all[0], Target::Room(hi)).await.unwrap();
    check(people_in(hi).await, &["anna", "carl", "dora"]);
    check(people_in(python).await, &[]);

    // Private rooms list nobody.
    let room = private(&store, &all[1], &all[2]).await;
    check(people_in(room).await, &[]);
    check(people_in(hi).await, &["carl", "dora"]);
    store.leave(vec![all[2].client]).await.unwrap();
    check(people_in(hi).await, &["dora"]);
    check(people_in(RoomId(1)).await, &[]);
}

async fn groups_are_listed_busiest_first_and_found_by_name(backend: &impl Backend) {
    fn listed(groups: &[Busy]) -> Vec<(String, u64)> {
        let listed = |busy: &Busy| match &busy.group.kind {
            RoomKind::Group(name) => (name.clone(), busy.people),
            RoomKind::Private { .. } => panic!("a private room is listed"),
        };
        groups.iter().map(listed).collect()
    }
    let named = |name: &str, people| (name.to_owned(), people);
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    for name in ["Zoo", "python 3"] {
        let name = GroupName::new(name).unwrap();
        store.make_group(anna.here(), name).await.unwrap();
    }
    enter(&store, &anna, Target::Group("zoo".into()))
        .await
        .unwrap();
    enter(&store, &bob, Target::Group("zoo".into()))
        .await
        .unwrap();
    let all = store.busiest_groups(3).await.unwrap();
    assert_eq!(
        listed(&all),
        [named("Zoo", 2), named("events", 0), named("hi", 0)]
    );
    // One goes to the lobby, the other into a private room.
    store.leave_room(anna.client).await.unwrap();
    store.leave_room(anna.client).await.unwrap();
    let all = store.busiest_groups(9).await.unwrap();
    assert_eq!((listed(&all)[0].clone(), all.len()), (named("Zoo", 1), 6));
    private(&store, &bob, &anna).await;
    let all = store.busiest_groups(9).await.unwrap();
    assert!(all.iter().all(|busy| busy.people == 0));

    let found = async |text| listed(&store.find_groups(text, 9).await.unwrap());
    assert_eq!(
        found("PY").await,
        [named("python", 0), named("python 3", 0)]
    );
    assert_eq!(found("python ").await, [named("python 3", 0)]);
    assert_eq!(found("thon").await, []);
    let one = store.find_groups("p", 1).await.unwrap();
    assert_eq!(listed(&one), [named("python", 0)]);
}

async fn people_online_are_listed_longest_first(backend: &impl Backend) {
    let store = backend.open().await;
    let mut all = Vec::new();
    for name in ["dora", "anna", "carl", "bob"] {
        all.push(arrive(&store, name).await);
    }
    let (online, count) = store.people_online(3).await.unwrap();
    assert_eq!(names(&online), ["dora", "anna", "carl"]);
    assert_eq!(count, 4);
    assert!(online.iter().all(|person| person.online));
    // A person whose socket is taken over has been online all the time; a person who left has not.
    let taken_over = come_back(&store, all[0].client, all[0].token).await;
    assert!(matches!(taken_over, Arrived::As { .. }));
    store.leave(vec![all[1].client]).await.unwrap();
    let online = store.people_online(9).await.unwrap().0;
    assert_eq!(names(&online), ["dora", "carl", "bob"]);
    assert_eq!(store.people_online(3).await.unwrap().1, 3);
    later_than_now().await;
    let back = come_back(&store, all[1].client, all[1].token).await;
    assert!(matches!(back, Arrived::As { .. }));
    let online = store.people_online(9).await.unwrap().0;
    assert_eq!(names(&online), ["dora", "carl", "bob", "anna"]);
}

async fn conversations_are_listed_unread_first_and_then_latest_first(backend: &impl Backend) {
    let store = backend.open().await;
    let me = arrive(&store, "me").await;
    let mut rooms = Vec::new();
    for name in ["anna", "bob", "carl", "dora"] {
        let other = arrive(&store, name).await;
        let room = private(&store, &me, &other).await;
        rooms.push((other, room));
    }
    for n in [0, 1] {
        post(&store, &rooms[n].0, rooms[n].1, "to me").await;
    }
    for n in [2, 3] {
        post(&store, &me, rooms[n].1, "from me").await;
    }
    store.leave(vec![rooms[1].0.client]).await.unwrap();
    let mine = store.people_of(me.user.id, 9).await.unwrap();
    assert_eq!(names(&mine), ["bob", "anna", "dora", "carl"]);
    let marks: Vec<_> = mine.iter().map(|p| (p.unread, p.online)).collect();
    assert_eq!(marks, [(1, false), (1, true), (0, true), (0, true)]);
    let mine = store.people_of(me.user.id, 3).await.unwrap();
    assert_eq!(names(&mine), ["bob", "anna", "dora"]);
    // Being in the same group is not a conversation.
    post(&store, &rooms[0].0, hi(&store).await, "all").await;
    assert_eq!(unread(&store, &rooms[0].0).await, [0]);
}

async fn people_are_found_by_the_first_letters_of_their_names(backend: &impl Backend) {
    let store = backend.open().await;
    for name in ["anne3", "anna1", "bob", "anna2", "an"] {
        arrive(&store, name).await;
    }
    let find = |beginning: &'static str, limit| {
        let store = Arc::clone(&store);
        async move {
            let found = store.find_people(beginning, limit).await.unwrap();
            found
                .into_iter()
                .map(|person| person.user.name)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(find("ann", 9).await, ["anna1", "anna2", "anne3"]);
    assert_eq!(find("ANNA", 9).await, ["anna1", "anna2"]);
    assert_eq!(find("ann", 2).await, ["anna1", "anna2"]);
    assert_eq!(find("", 9).await.len(), 5);
    for nothing in ["x", "nna", "a%", "an_", "anna11", "*", "'"] {
        assert!(find(nothing, 9).await.is_empty(), "{nothing}");
    }
}

async fn people_to_mention_are_those_in_the_room_then_those_i_know_then_others(
    backend: &impl Backend,
) {
    let store = backend.open().await;
    let mut people = Vec::new();
    for name in ["anna", "abe1", "abe2", "abe3", "abe4", "bob"] {
        people.push(arrive(&store, name).await);
    }
    let anna = &people[0];
    let group = hi(&store).await;
    // abe4 is there, abe3 was, and anna has talked with abe2.
    enter_room(&store, &people[4], Target::Room(group)).await;
    post(&store, &people[3], group, "bye").await;
    let private = private(&store, anna, &people[2]).await;
    post(&store, anna, private, "psst").await;
    rename(&store, &people[5], "Abigail").await.unwrap();
    let find = async |beginning: &str, limit| {
        let found = store.people_to_mention(anna.user.id, group, beginning, limit);
        let found = found.await.unwrap().into_iter();
        found.map(|person| person.user.name).collect::<Vec<_>>()
    };
    assert_eq!(find("ab", 9).await, ["abe3", "abe4", "abe2", "abe1", "bob"]);
    assert_eq!(find("ABE", 2).await, ["abe3", "abe4"]);
    assert_eq!(find("abe1", 9).await, ["abe1"]);
    // Without a beginning, nobody else is proposed.
    assert_eq!(find("", 9).await, ["abe3", "abe4", "abe2"]);
    for nothing in ["x", "a%", "anna"] {
        assert!(find(nothing, 9).await.is_empty(), "{nothing}");
    }
}

async fn a_taken_name_makes_no_second_user(backend: &impl Backend) {
    let store = seeded(backend, &["anna"]).await;
    let mut same_address = new_user("carl");
    same_address.email = new_user("anna").email;
    let users = vec![new_user("anna"), new_user("bob"), same_address];
    assert_eq!(store.add_users(users).await.unwrap(), 1);
    assert_eq!(store.census().await.unwrap().users, 2);
}

async fn the_default_groups_are_in_order(backend: &impl Backend) {
    let store = backend.open().await;
    let groups = store.groups(None, 50).await.unwrap();
    let expected = ["hi", "python", "events", "off-topic"];
    for (listed, name) in groups.iter().zip(expected) {
        let group = &listed.group;
        assert_eq!(group.kind, RoomKind::Group(name.to_owned()));
        assert_eq!(store.group(name, None).await.unwrap().as_ref(), Some(group));
    }
    assert_eq!(groups.len(), expected.len());
}

async fn a_group_is_created_once_and_belongs_to_its_creator(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let name = |text: &str| GroupName::new(text).unwrap();
    let makes = |somebody: &Somebody, text: &str| store.make_group(somebody.here(), name(text));
    makes(&anna, "Zebras").await.unwrap();
    makes(&anna, "apes").await.unwrap();
    for same in ["ZEBRAS", "Ｚｅｂｒａｓ", "zebraſ"] {
        makes(&bob, same).await.unwrap();
    }
    let names = async |user: Option<UserId>, limit| -> Vec<String> {
        let groups = store.groups(user, limit).await.unwrap();
        let titles = groups.iter().map(|listed| title(&listed.group));
        titles.collect()
    };
    let default = ["#hi", "#python", "#events", "#off-topic"];
    assert_eq!(names(None, 50).await, default);
    assert_eq!(names(Some(bob.user.id), 50).await, default);
    let mine = [&default[..], &["#apes", "#Zebras"]].concat();
    assert_eq!(names(Some(anna.user.id), 50).await, mine);
    assert_eq!(names(Some(anna.user.id), 5).await.len(), 5);
    let zebras = store.group("ｚebras", None).await.unwrap().unwrap();
    assert_eq!(overwire::views::title(&zebras), "#Zebras");
    post(&store, &bob, zebras.id, "hello").await;
    let mine = [&default[..], &["#Zebras"]].concat();
    assert_eq!(names(Some(bob.user.id), 50).await, mine);
    // The letter whose other form is longest: 18 letters.
    let long = "\u{fdfa}".repeat(GroupName::CHARACTERS);
    makes(&bob, &long).await.unwrap();
    assert!(store.group(&long, None).await.unwrap().is_some());
}

async fn the_census_counts_users_rooms_and_messages(backend: &impl Backend) {
    let store = seeded(backend, &["carl"]).await;
    let count = || async {
        let census = store.census().await.unwrap();
        (census.users, census.private_rooms, census.messages)
    };
    assert_eq!(count().await, (1, 0, 0));
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let room = private(&store, &anna, &bob).await;
    assert_eq!(count().await, (2, 1, 0));
    post(&store, &anna, room, "1").await;
    post(&store, &anna, hi(&store).await, "2").await;
    assert_eq!(count().await, (2, 1, 2));
}

/// Somebody arrives with a session, and as a former client if they come back to one.
async fn arrive_by(
    store: &Store,
    session: TokenHash,
    back: Option<(ClientRef, TokenHash)>,
) -> (Arrived, TokenHash) {
    let token = back.map_or_else(token, |(_, token)| token);
    let arrival = Arrival {
        session: Some(session),
        resume: back.map(|(client, token)| Resume::Client(client, token)),
        token,
        ..newcomer(NODE, Some("spare"))
    };
    (store.arrive(arrival).await.unwrap(), token)
}

/// Another client of somebody who has signed in.
pub(crate) async fn another(store: &Store, session: TokenHash) -> Somebody {
    let (arrived, token) = arrive_by(store, session, None).await;
    Somebody::of(arrived, token)
}

async fn a_registered_person_is_recognized_by_their_session_only(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let session = keep(&store, &anna).await;
    assert_eq!(store.client_by_token(anna.token, None).await.unwrap(), None);
    let by_session = store.client_by_token(anna.token, Some(session)).await;
    assert_eq!(by_session.unwrap(), None);
    // The guest's socket is still open, so nobody has left.
    assert_eq!(names(&store.people_online(9).await.unwrap().0), ["anna"]);
    let overtaken = come_back(&store, anna.client, anna.token).await;
    assert_eq!(overtaken, Arrived::Overtaken);

    let tab = another(&store, session).await;
    assert_eq!(tab.user, anna.user);
    // A tab comes back with the session and its token, not with less.
    assert_eq!(store.client_by_token(tab.token, None).await.unwrap(), None);
    let returning = store
        .client_by_token(tab.token, Some(session))
        .await
        .unwrap();
    assert_eq!(returning, Some((tab.client, Some(NODE))));
    let overtaken = come_back(&store, tab.client, tab.token).await;
    assert_eq!(overtaken, Arrived::Overtaken);
    let other = sign_in(&store, &anna.user).await;
    let back = Some((tab.client, tab.token));
    let overtaken = arrive_by(&store, other, back).await.0;
    assert_eq!(overtaken, Arrived::Overtaken);
    let Arrived::As { client, user, .. } = arrive_by(&store, session, back).await.0 else {
        panic!("the token is good");
    };
    assert_eq!((client.client, user), (tab.client.client, anna.user));
    // An unknown session counts as none.
    let guest = arrive_by(&store, token(), None).await.0;
    assert!(matches!(guest, Arrived::As { session: None, user, .. } if user.name == "spare"));
}

async fn a_name_is_registered_once_and_by_its_guest_only(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let try_to_keep = async |token| {
        let session = new_session(None);
        let kept = store
            .register(token, password("his"), session)
            .await
            .unwrap();
        assert_eq!(
            store.session(session.token).await.unwrap().is_some(),
            kept.is_some()
        );
        kept.is_some()
    };
    let session = keep(&store, &anna).await;
    assert!(!try_to_keep(anna.token).await && !try_to_keep(token()).await);
    let tab = another(&store, session).await;
    assert!(!try_to_keep(tab.token).await);
    let (user, hash) = store.account("anna").await.unwrap().unwrap();
    assert_eq!((user, hash), (anna.user, password("hers")));
    assert_eq!(store.account("bob").await.unwrap(), None);
    // A guest whose socket is lost for a moment can register too.
    store.leave(vec![bob.client]).await.unwrap();
    assert!(try_to_keep(bob.token).await);
}

async fn a_registered_user_and_their_names_are_never_given_to_somebody_else(
    backend: &impl Backend,
) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    assert_ne!(
        rename(&store, &anna, "Paul Hill").await,
        Err(Refused::NameTaken)
    );
    assert_ne!(rename(&store, &bob, "Gus").await, Err(Refused::NameTaken));
    keep(&store, &anna).await;
    store.leave(vec![anna.client, bob.client]).await.unwrap();
    expire_after(&store, 2 * TOKEN_GOOD_FOR).await;
    assert!(nobody_is_free(&store).await);
    let carl = arrive(&store, "carl").await;
    for name in ["Paul Hill", "paulhill", "Pau1 Hi11"] {
        assert_eq!(
            rename(&store, &carl, name).await,
            Err(Refused::NameTaken),
            "{name}"
        );
    }
    assert_ne!(rename(&store, &carl, "Gus").await, Err(Refused::NameTaken));
    for name in ["paul hill", "PAUL HILL", "Anna"] {
        let account = store.account(name).await.unwrap();
        assert_eq!(account.unwrap().0.id, anna.user.id, "{name}");
    }
    assert_eq!(store.account("gus").await.unwrap(), None);
}

async fn a_session_starts_with_the_password_and_ends_with_its_clients(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let home = keep(&store, &anna).await;
    let wrong = store.sign_in(anna.user.id, password("his"), new_session(None));
    assert_eq!(wrong.await.unwrap(), None);
    let phone = sign_in(&store, &anna.user).await;
    let (at_home, away) = (another(&store, home).await, another(&store, phone).await);
    enter(&store, &at_home, Target::Group("hi".into()))
        .await
        .unwrap();
    enter(&store, &away, Target::Group("hi".into()))
        .await
        .unwrap();

    let ended = store.sign_out(home).await.unwrap().unwrap();
    assert_eq!(ended.user, anna.user);
    assert_eq!(store.sign_out(home).await.unwrap(), None);
    assert_eq!(store.session(home).await.unwrap(), None);
    assert_eq!(
        store.client_by_token(at_home.token, None).await.unwrap(),
        None
    );
    let by_other = store.client_by_token(at_home.token, Some(phone)).await;
    assert_eq!(by_other.unwrap(), None);
    let (people, count) = store.people_in(hi(&store).await, 9).await.unwrap();
    assert_eq!((names(&people), count), (vec!["anna"], 1));
    // Its sockets notice later and change nothing any more.
    can_do_nothing(&store, &at_home).await;
    assert_eq!(store.leave(vec![at_home.client]).await.unwrap(), []);
    let busy = store.busiest_groups(9).await.unwrap();
    assert_eq!(busy.iter().map(|busy| busy.people).sum::<u64>(), 1);

    assert_eq!(store.session(phone).await.unwrap().unwrap().user, anna.user);
    store.sign_out(phone).await.unwrap().unwrap();
    assert_eq!(store.people_online(9).await.unwrap().0, []);
    assert_eq!(store.people_in(hi(&store).await, 9).await.unwrap().1, 0);
}

async fn a_new_session_replaces_the_former(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let former = keep(&store, &anna).await;
    let session = new_session(Some(former));
    let begun = store.register(bob.token, password("his"), session).await;
    let begun = begun.unwrap().unwrap();
    assert_eq!(begun.session.user, bob.user);
    assert_eq!(begun.former.unwrap().user, anna.user);
    assert_eq!(store.session(former).await.unwrap(), None);
    // A session that has already ended does not matter.
    let session = new_session(Some(former));
    let begun = store.sign_in(anna.user.id, password("hers"), session);
    assert_eq!(begun.await.unwrap().unwrap().former, None);
}

async fn a_session_expires_thirty_days_after_its_last_use(backend: &impl Backend) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let session = keep(&store, &anna).await;
    // Her guest's client belongs to the session and is online.
    expire_after(&store, SESSION_GOOD_FOR + DAY).await;
    assert!(store.session(session).await.unwrap().is_some());
    store.leave(vec![anna.client]).await.unwrap();
    expire_after(&store, SESSION_GOOD_FOR - DAY).await;
    assert!(store.session(session).await.unwrap().is_some());
    expire_after(&store, SESSION_GOOD_FOR + DAY).await;
    assert_eq!(store.session(session).await.unwrap(), None);
    // The name stays registered.
    assert!(store.account("anna").await.unwrap().is_some());
    sign_in(&store, &anna.user).await;
}

async fn changing_the_password_ends_the_other_sessions(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let home = keep(&store, &anna).await;
    let phone = sign_in(&store, &anna.user).await;
    let change = async |session, was: &str| {
        let changed = store.change_password(session, password(was), password("new"));
        changed.await.unwrap().is_some()
    };
    assert!(!change(home, "his").await && !change(token(), "hers").await);
    assert!(store.session(phone).await.unwrap().is_some());
    assert!(change(home, "hers").await);
    assert_eq!(store.session(phone).await.unwrap(), None);
    assert!(store.session(home).await.unwrap().is_some());
    // A sign-in with the former password comes too late.
    let late = store.sign_in(anna.user.id, password("hers"), new_session(None));
    assert_eq!(late.await.unwrap(), None);
}

async fn a_person_with_several_clients_is_listed_and_counted_once(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let session = keep(&store, &anna).await;
    later_than_now().await;
    let bob = arrive(&store, "bob").await;
    let tabs = [
        another(&store, session).await,
        another(&store, session).await,
    ];
    let room = hi(&store).await;
    let check = async |online: &[&str], inside: &[&str]| {
        assert_eq!(names(&store.people_online(9).await.unwrap().0), online);
        let (people, count) = store.people_in(room, 9).await.unwrap();
        assert_eq!(
            (names(&people), count),
            (inside.to_vec(), inside.len() as u64)
        );
        let busy = store.find_groups("hi", 1).await.unwrap();
        assert_eq!(busy[0].people, count);
    };
    for who in [&anna, &bob, &tabs[0], &tabs[1]] {
        enter(&store, who, Target::Room(room)).await.unwrap();
        later_than_now().await;
    }
    check(&["anna", "bob"], &["anna", "bob"]).await;
    // Again, and from one room to the other and back.
    enter(&store, &tabs[0], Target::Room(room)).await.unwrap();
    enter(&store, &tabs[1], Target::Group("python".into()))
        .await
        .unwrap();
    check(&["anna", "bob"], &["anna", "bob"]).await;
    let busy = store.find_groups("python", 1).await.unwrap();
    assert_eq!(busy[0].people, 1);
    enter(&store, &tabs[1], Target::Room(room)).await.unwrap();
    // The first client is gone; the others entered after bob.
    store.leave(vec![anna.client]).await.unwrap();
    check(&["bob", "anna"], &["bob", "anna"]).await;
    store.leave_room(tabs[0].client).await.unwrap();
    check(&["bob", "anna"], &["bob", "anna"]).await;
    store.leave(vec![tabs[1].client]).await.unwrap();
    check(&["bob", "anna"], &["bob"]).await;
    store.leave(vec![tabs[0].client]).await.unwrap();
    check(&["bob"], &["bob"]).await;
}

async fn a_reset_leaves_the_default_groups_and_nothing_else(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, room, page) = written(&store, 3).await;
    let bob = arrive(&store, "bob").await;
    let between = private(&store, &anna, &bob).await;
    post(&store, &anna, between, "hello").await;
    let session = keep(&store, &bob).await;
    store.reset().await.unwrap();
    let census = store.census().await.unwrap();
    assert_eq!(
        (census.users, census.private_rooms, census.messages),
        (0, 0, 0)
    );
    assert_eq!(store.client_by_token(anna.token, None).await.unwrap(), None);
    assert_eq!(store.session(session).await.unwrap(), None);
    assert!(store.people_online(9).await.unwrap().0.is_empty());
    let groups = store.groups(None, 50).await.unwrap();
    assert_eq!(groups.len(), 4);
    // Rooms get new ids, so an old version cannot be mistaken for a new one.
    assert!(groups.iter().all(|listed| listed.group.id != room));
    let new_hi = hi(&store).await;
    let rest = store.catch_up(new_hi, Some(page.version)).await.unwrap();
    assert!(matches!(rest, CatchUp::Newest(page) if page.messages.is_empty()));
    let carl = arrive(&store, "carl").await;
    assert_eq!(post(&store, &carl, new_hi, "hello").await.made, 1);
}

async fn a_closed_store_refuses_everything(backend: &impl Backend) {
    let store = backend.open().await;
    store.check().await.unwrap();
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    // What had been started is finished.
    let mut posting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, anna) = (Arc::clone(&store), anna.clone());
        posting.spawn(async move { post(&store, &anna, room, "hello").await });
    }
    posting.join_all().await;
    store.close().await;
    assert!(matches!(store.check().await, Err(StoreError::Closed)));
    assert!(matches!(store.newest(room).await, Err(StoreError::Closed)));
    let leaving = store.leave(vec![anna.client]).await;
    assert!(matches!(leaving, Err(StoreError::Closed)));
    for _ in 0..20 {
        assert!(changes.recv().await.is_some());
    }
    assert!(changes.recv().await.is_none());
    let store = backend.open().await;
    assert_eq!(store.newest(room).await.unwrap().messages.len(), 20);
}

async fn messages_since_a_version_are_read_page_by_page(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let room = hi(&store).await;
    post_many(&store, &anna, room, 2 * PAGE_MESSAGES + 1).await;
    let first = whole_room(&store, room).await.0.remove(0);
    amend(&store, &anna, room, first.id, Some("edited"))
        .await
        .unwrap();
    let second = whole_room(&store, room).await.0.remove(1);
    react(&store, &anna, &second, "👍", true).await.unwrap();
    let (mut after, mut found, mut pages) = (0, Vec::new(), Vec::new());
    loop {
        let (messages, version) = store.worded_since(room, after).await.unwrap();
        if messages.is_empty() {
            break;
        }
        pages.push(messages.len());
        after = version.number;
        found.extend(messages);
    }
    // The edited message is read once, at its last change.
    assert_eq!(pages, [PAGE_MESSAGES, PAGE_MESSAGES, 1]);
    assert_eq!(after, 2 * PAGE_MESSAGES as u64 + 3);
    assert!(found.is_sorted_by_key(|message| message.worded));
    let ids: HashSet<_> = found.iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), found.len());
    assert_eq!(found.last().unwrap().text, "edited");
}

async fn rename(store: &Store, who: &Somebody, name: &str) -> Result<Renamed, Refused> {
    let name = DisplayName::new(name).unwrap();
    settled(store.rename(who.here(), Some(name), 1).await)
}

async fn a_display_name_belongs_to_one_person_online(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let seeds = vec![new_user("dora1"), new_user("seed7")];
    store.add_users(seeds).await.unwrap();
    let room = private(&store, &bob, &anna).await;
    let Renamed {
        user,
        former,
        rooms,
    } = rename(&store, &anna, "Lee").await.unwrap();
    assert_eq!(
        (user.shown_name(), former, rooms),
        ("Lee", vec![], vec![room])
    );
    assert_eq!(user.name, anna.user.name);
    let pair = store.pair(room).await.unwrap().unwrap();
    assert!(pair.contains(&user) && pair.contains(&bob.user));
    assert_eq!(store.pair(hi(&store).await).await.unwrap(), None);
    // Neither that name nor any user name, used or not.
    let begun = format!("{} hello", anna.user.name);
    for name in [
        "lee",
        "1EE",
        &anna.user.name,
        &begun,
        "Seed7",
        "d0ra1",
        "Seed 7 x",
    ] {
        assert_eq!(
            rename(&store, &bob, name).await,
            Err(Refused::NameTaken),
            "{name}"
        );
    }
    // No user is added whose name would be the same.
    assert_eq!(
        store
            .add_users(vec![new_user("lee"), new_user("lee1")])
            .await
            .unwrap(),
        1
    );

    let message = post(&store, &anna, hi(&store).await, "hello").await;
    assert_eq!(message.author.name, "Lee");
    assert_eq!(message.author.user_name, anna.user.name);
    store.leave(vec![anna.client]).await.unwrap();
    let renamed = rename(&store, &bob, "Lee").await.unwrap();
    assert_eq!(renamed.former, [anna.user.id]);
    let again = back(&store, &anna).await;
    assert_eq!(again.user, anna.user);
    let anna = again;
    assert_eq!(rename(&store, &anna, "Lee").await, Err(Refused::NameTaken));
    let page = store.newest(message.room).await.unwrap();
    assert_eq!(page.messages[0].author.name, "Lee");

    // Choosing one's own user name removes the display name.
    let renamed = rename(&store, &bob, &bob.user.name).await.unwrap();
    assert_eq!(renamed.user.display_name, None);
    rename(&store, &anna, "Lee").await.unwrap();
    let renamed = store.rename(anna.here(), None, 1).await.unwrap();
    assert_eq!(renamed.user, anna.user);
    // A user who has chosen a name is not given to anybody else.
    store.leave(vec![anna.client, bob.client]).await.unwrap();
    expire_after(&store, FREE_AFTER + Duration::from_secs(60)).await;
    for _ in 0..3 {
        if let (Arrived::As { user, .. }, _) = try_to_arrive(&store, None).await {
            assert!(![anna.user.id, bob.user.id].contains(&user.id));
        }
    }
    assert!(nobody_is_free(&store).await);
}

async fn people_are_found_by_their_display_names(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    rename(&store, &anna, "Bo Älva").await.unwrap();
    let found = async |beginning: &str| {
        let found = store.find_people(beginning, 10).await.unwrap();
        found
            .into_iter()
            .map(|person| person.user.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(found("bo").await, ["bob", "anna"]);
    assert_eq!(found("BO ä").await, ["anna"]);
    assert_eq!(found("ann").await, ["anna"]);
    assert_eq!(store.find_people("bo", 1).await.unwrap().len(), 1);
    let called = async |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let found = store.find_person(names).await.unwrap();
        found.map(|(n, user)| (n, user.id))
    };
    assert_eq!(
        called(&["bo älva x", "BO ÄLVA", "bob"]).await,
        Some((1, anna.user.id))
    );
    assert_eq!(called(&["nobody", "Bob"]).await, Some((1, bob.user.id)));
    assert_eq!(called(&["bo", ""]).await, None);
}

/// A new moderator.
pub(crate) async fn moderator(store: &Store, name: &str) -> Somebody {
    let somebody = arrive(store, name).await;
    promote(store, &somebody).await;
    somebody
}

fn was_done(words: &str, user: Option<&Somebody>) -> Moderated {
    Moderated::Done {
        words: words.to_owned(),
        user: user.map(|somebody| somebody.user.id),
    }
}

async fn audit_log(store: &Store) -> Vec<String> {
    let entries = store.audit_log(i64::MAX, 99).await.unwrap().into_iter();
    entries
        .map(|entry| format!("{} {}", entry.moderator, entry.words))
        .collect()
}

async fn a_link_makes_one_moderator_once(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let link = token();
    let becomes = async |who: &Somebody, link| {
        let becoming = store.become_moderator(link, who.user.id);
        becoming.await.unwrap()
    };
    assert!(!becomes(&anna, link).await);
    store.add_admin_link(link).await.unwrap();
    assert!(store.is_admin_link(link).await.unwrap());
    assert!(!store.is_admin_link(token()).await.unwrap());
    assert!(becomes(&anna, link).await);
    assert!(!becomes(&bob, link).await);
    assert!(!store.is_admin_link(link).await.unwrap());
    let standing = async |who: &Somebody| store.standing(who.user.id).await.unwrap();
    assert!(standing(&anna).await.moderator);
    assert_eq!(standing(&bob).await, Standing::default());
    assert!(store.end_moderator("ANNA").await.unwrap());
    assert!(!store.end_moderator("anna").await.unwrap());
    assert_eq!(standing(&anna).await, Standing::default());
    assert_eq!(
        audit_log(&store).await,
        [
            "the command line removed anna as a moderator",
            "anna became a moderator"
        ]
    );
    assert!(ADMIN_LINK_GOOD_FOR <= 60 * MINUTE);
}

async fn a_newcomer_with_a_moderator_link_registers_by_it(backend: &impl Backend) {
    let store = seeded(backend, &["anna"]).await;
    let comes = async |link, spare| {
        let session = NewSession {
            token: token(),
            former: None,
        };
        let password = PasswordHash("a hash".to_owned());
        let arriving = store.arrive_as_moderator(link, new_user(spare), password, session);
        let begun: Option<SignedIn> = arriving.await.unwrap();
        begun.map(|begun| begun.session.user)
    };
    assert_eq!(comes(token(), "bob").await, None);
    let links = [token(), token()];
    for link in links {
        store.add_admin_link(link).await.unwrap();
    }
    let anna = comes(links[0], "bob").await.unwrap();
    assert_eq!(anna.name, "anna");
    assert_eq!(comes(links[0], "bob").await, None);
    assert_eq!(comes(links[1], "anna").await, None, "a name that is taken");
    let bob = comes(links[1], "bob").await.unwrap();
    for user in [anna, bob] {
        assert!(store.standing(user.id).await.unwrap().moderator);
        let (kept, hash) = store.account(&user.name).await.unwrap().unwrap();
        assert_eq!((kept, hash.0.as_str()), (user, "a hash"));
    }
    expire_after(&store, 2 * FREE_AFTER).await;
    assert!(nobody_is_free(&store).await);
}

async fn a_password_is_reset_by_a_link_once(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let moderator = moderator(&store, "mo").await;
    let first = keep(&store, &bob).await;
    let second = sign_in(&store, &bob.user).await;
    let phone = Arrival {
        session: Some(second),
        ..newcomer(NODE, None)
    };
    let phone = Somebody::of(store.arrive(phone).await.unwrap(), token());
    let (links, by) = ([token(), token(), token()], Some(moderator.user.id));
    let added = async |by, name, link| store.add_password_link(by, name, link).await.unwrap();
    let created = was_done("created a link to reset the password of bob", Some(&bob));
    let reset = async |link, user: &Somebody, hash: &str| {
        let (password, session) = (PasswordHash(hash.to_owned()), new_session(None));
        let reset = store.reset_password(link, user.user.clone(), password, session);
        reset.await.unwrap().map(|_| session.token)
    };

    // Who may not, and for whom not.
    let anna_id = Some(anna.user.id);
    let expected = Moderated::NotAllowed;
    assert_eq!(added(anna_id, "bob", links[0]).await, expected);
    assert_eq!(added(by, "anna", links[0]).await, Moderated::Nothing);
    assert_eq!(added(by, "nobody", links[0]).await, Moderated::Nothing);
    assert_eq!(added(by, "mo", links[0]).await, Moderated::Protected);
    assert_eq!(store.password_link(links[0]).await.unwrap(), None);

    // A newer link replaces an older one. Nothing else has changed so far.
    assert_eq!(added(by, "BOB", links[0]).await, created);
    assert_eq!(added(None, "bob", links[1]).await, created);
    assert_eq!(store.password_link(links[0]).await.unwrap(), None);
    let linked = store.password_link(links[1]).await.unwrap();
    assert_eq!(linked.as_ref(), Some(&bob.user));
    assert!(store.session(first).await.unwrap().is_some());
    let (_, hash) = store.account("bob").await.unwrap().unwrap();
    assert_eq!(hash, password("hers"));

    assert_eq!(reset(links[0], &bob, "x").await, None);
    assert_eq!(reset(links[1], &anna, "x").await, None, "not her link");
    let new = reset(links[1], &bob, "new").await.unwrap();
    assert_eq!(reset(links[1], &bob, "again").await, None);
    let (_, hash) = store.account("bob").await.unwrap().unwrap();
    assert_eq!(hash.0, "new");
    for ended in [first, second] {
        assert_eq!(store.session(ended).await.unwrap(), None);
    }
    let session = store.session(new).await.unwrap().unwrap();
    assert_eq!(session.user, bob.user);
    let stale = store.stale_clients(vec![phone.client]).await.unwrap();
    assert_eq!(stale, [phone.client.client]);

    // A link is void once the password was changed, the person is banned, or became a moderator.
    assert_eq!(added(by, "bob", links[2]).await, created);
    let changed = PasswordHash("changed".to_owned());
    let changed = store.change_password(new, PasswordHash("new".to_owned()), changed);
    assert!(changed.await.unwrap().is_some());
    assert_eq!(reset(links[2], &bob, "x").await, None);
    assert_eq!(added(by, "bob", links[2]).await, created);
    moderate(&store, &moderator, ban_of(&bob, true)).await;
    assert_eq!(reset(links[2], &bob, "x").await, None);
    assert_eq!(added(by, "bob", links[0]).await, Moderated::Nothing);
    moderate(&store, &moderator, ban_of(&bob, false)).await;
    assert_eq!(added(by, "bob", links[2]).await, created);
    promote(&store, &bob).await;
    assert_eq!(reset(links[2], &bob, "x").await, None);
    assert_eq!(added(None, "bob", links[2]).await, created);
    assert!(reset(links[2], &bob, "last").await.is_some());
    let moderators = store.moderators().await.unwrap();
    let names = moderators.iter().map(|(user, _)| &*user.name);
    assert_eq!(names.collect::<Vec<_>>(), ["bob", "mo"]);
    assert!(PASSWORD_LINK_GOOD_FOR <= 60 * MINUTE);

    let log = audit_log(&store).await;
    let all = |entry: &str| log.iter().filter(|other| *other == entry).count();
    assert_eq!(all("mo created a link to reset the password of bob"), 4);
    let by_command = "the command line created a link to reset the password of bob";
    assert_eq!(all(by_command), 2);
    assert_eq!(all("bob chose a new password with a link"), 2);
}

async fn only_moderators_moderate_and_what_they_do_is_recorded(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let carl = moderator(&store, "carl").await;
    let hi = hi(&store).await;
    let python = group(&store, "python").await;
    let name = |name: &str, on| ModeratorAction::Mute {
        name: name.to_owned(),
        on,
    };
    let restricts = ModeratorAction::RestrictGroup {
        room: python,
        on: true,
    };
    for action in [
        name("anna", true),
        name("bob", true),
        restricts.clone(),
        ModeratorAction::RemoveGroup { room: python },
    ] {
        assert_eq!(moderate(&store, &bob, action).await, Moderated::NotAllowed);
    }
    for (action, expected) in [
        (name("nobody", true), Moderated::Nothing),
        (name("carl", true), Moderated::Protected),
        (name("anna", true), Moderated::Protected),
        (name("BOB", true), was_done("muted bob", Some(&bob))),
        (name("bob", true), Moderated::Already),
        (name("bob", false), was_done("unmuted bob", Some(&bob))),
        (
            ModeratorAction::RemoveGroup { room: hi },
            Moderated::Protected,
        ),
        (
            ModeratorAction::RestrictGroup { room: hi, on: true },
            Moderated::Protected,
        ),
        (
            ModeratorAction::RestrictGroup {
                room: RoomId(1),
                on: true,
            },
            Moderated::Nothing,
        ),
        (
            restricts,
            was_done("restricted #python to moderators", None),
        ),
    ] {
        let went = moderate(&store, &anna, action.clone()).await;
        assert_eq!(went, expected, "{action:?}");
    }
    assert!(store.end_moderator("carl").await.unwrap());
    can_do_nothing(&store, &carl).await;
    let carl = back_by_token(&store, carl.token).await;
    let went = moderate(&store, &carl, name("bob", true)).await;
    assert_eq!(went, Moderated::NotAllowed);
    let recorded = audit_log(&store).await;
    assert_eq!(
        recorded[1..4],
        [
            "anna restricted #python to moderators",
            "anna unmuted bob",
            "anna muted bob"
        ]
    );
    // Page by page.
    let first = store.audit_log(i64::MAX, 2).await.unwrap();
    let next = store.audit_log(first[1].id, 99).await.unwrap();
    assert_eq!(first.len() + next.len(), recorded.len());
}

async fn a_muted_person_can_write_and_change_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let (hi, room) = (hi(&store).await, private(&store, &bob, &anna).await);
    let one = post(&store, &bob, hi, "one").await;
    let key = Some(Uuid::new_v4());
    let known = try_to_post(&store, &bob, hi, "known", key).await;
    let mute = |on| ModeratorAction::Mute {
        name: "bob".to_owned(),
        on,
    };
    moderate(&store, &anna, mute(true)).await;
    let before = store.newest(hi).await.unwrap();
    for room in [hi, room] {
        let posted = try_to_post(&store, &bob, room, "two", None).await;
        assert_eq!(posted, Err(Refused::Muted));
    }
    // A message stored earlier settles.
    let again = try_to_post(&store, &bob, hi, "known", key).await;
    assert!(matches!((known, again), (Ok(Posted::New(one)), Ok(Posted::Known(two))) if one == two));
    for text in [Some("edited"), None] {
        let amended = amend(&store, &bob, hi, one.id, text).await;
        assert_eq!(amended, Err(Refused::Muted));
    }
    assert_eq!(
        react(&store, &bob, &one, "👍", true).await,
        Err(Refused::Muted)
    );
    assert_eq!(rename(&store, &bob, "Bobby").await, Err(Refused::Muted));
    let group = GroupName::new("bobs").unwrap();
    let made = store.make_group(bob.here(), group).await;
    assert_eq!(settled(made), Err(Refused::Muted));
    assert_eq!(store.group("bobs", None).await.unwrap(), None);
    assert_eq!(store.newest(hi).await.unwrap(), before);
    moderate(&store, &anna, mute(false)).await;
    post(&store, &bob, hi, "two").await;
}

async fn a_banned_person_cannot_return_as_their_user(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let hi = hi(&store).await;
    enter(&store, &bob, Target::Room(hi)).await.unwrap();
    let session = NewSession {
        token: token(),
        former: None,
    };
    let guest = arrive(&store, "carl").await;
    let hash = PasswordHash("a hash".to_owned());
    store
        .register(guest.token, hash.clone(), session)
        .await
        .unwrap()
        .unwrap();
    let ban = |name: &str, on| ModeratorAction::Ban {
        name: name.to_owned(),
        on,
    };
    for (name, who) in [("bob", &bob), ("carl", &guest)] {
        let went = moderate(&store, &anna, ban(name, true)).await;
        assert_eq!(went, was_done(&format!("banned {name}"), Some(who)));
        can_do_nothing(&store, who).await;
    }
    assert!(store.people_in(hi, 9).await.unwrap().0.is_empty());
    assert_eq!(names(&store.people_online(9).await.unwrap().0), ["anna"]);
    assert_eq!(store.session(session.token).await.unwrap(), None);
    assert_eq!(store.account("carl").await.unwrap(), None);
    let begun = store.sign_in(guest.user.id, hash, session).await;
    assert_eq!(begun.unwrap(), None);
    expire_after(&store, 2 * FREE_AFTER).await;
    assert!(nobody_is_free(&store).await);
    moderate(&store, &anna, ban("carl", false)).await;
    assert!(store.account("carl").await.unwrap().is_some());
}

async fn ban(store: &Store, by: &Somebody, whom: &Somebody, on: bool) {
    let did = if on { "banned" } else { "unbanned" };
    let words = format!("{did} {}", whom.user.name);
    let went = moderate(store, by, ban_of(whom, on)).await;
    assert_eq!(went, was_done(&words, Some(whom)));
}

/// Somebody comes back with a token as the client it belongs to, with a session if they have one.
async fn show(store: &Store, token: TokenHash, session: Option<TokenHash>) -> Option<Arrived> {
    let (returning, node) = store.client_by_token(token, session).await.unwrap()?;
    assert_eq!(node, None, "it is nowhere");
    Some(match session {
        Some(session) => arrive_by(store, session, Some((returning, token))).await.0,
        None => come_back(store, returning, token).await,
    })
}

async fn the_token_of_a_banned_person_lets_nobody_in(backend: &impl Backend) {
    let store = seeded(backend, &["anna", "bob", "carl", "dora", "emil"]).await;
    let anna = moderator(&store, "spare").await;
    let [bob, guest, dora] = [
        arrive(&store, "spare").await,
        arrive(&store, "spare").await,
        arrive(&store, "spare").await,
    ];
    let hi = hi(&store).await;
    let session = keep(&store, &guest).await;
    let carl = another(&store, session).await;
    for who in [&bob, &carl, &dora] {
        enter(&store, who, Target::Room(hi)).await.unwrap();
    }
    let room = private(&store, &dora, &bob).await;
    post(&store, &bob, room, "for dora").await;
    let count = store.census().await.unwrap();
    for who in [&bob, &carl] {
        ban(&store, &anna, who, true).await;
        // A lookup from just before the ban comes too late.
        let arrived = come_back(&store, who.client, who.token).await;
        assert_eq!(arrived, Arrived::Banned);
        can_do_nothing(&store, who).await;
    }
    // However often they try, with or without the ended session.
    for (token, session) in [
        (bob.token, None),
        (bob.token, None),
        (carl.token, None),
        (carl.token, Some(session)),
    ] {
        let arrived = show(&store, token, session).await;
        assert_eq!(arrived, Some(Arrived::Banned));
    }
    let kept = store.register(bob.token, password("his"), new_session(None));
    assert_eq!(kept.await.unwrap(), None, "no more than before");

    // No client was made, and nobody else is affected.
    assert_eq!(store.census().await.unwrap(), count);
    let mut here = [&*anna.user.name, &dora.user.name];
    here.sort_unstable();
    let (online, number) = store.people_online(9).await.unwrap();
    let mut online = names(&online);
    online.sort_unstable();
    assert_eq!((online, number), (here.to_vec(), 2));
    assert_eq!(store.people_in(hi, 9).await.unwrap(), (Vec::new(), 0));
    let people = store.people_of(dora.user.id, 9).await.unwrap();
    assert!(matches!(&people[..], [one] if one.user == bob.user && !one.online));
    assert_eq!(unread(&store, &dora).await, [1]);
    assert_eq!(
        store.leave(vec![bob.client, carl.client]).await.unwrap(),
        []
    );
    let dora = back(&store, &dora).await;
    post(&store, &dora, hi, "here").await;
    // A newcomer gets the one free user, but never a banned one.
    expire_after(&store, 2 * FREE_AFTER).await;
    assert!(!nobody_is_free(&store).await);
    assert!(nobody_is_free(&store).await);
    // Signing in as somebody else works.
    let hers = keep(&store, &dora).await;
    assert_eq!(show(&store, bob.token, Some(hers)).await, None);
    assert_eq!(another(&store, hers).await.user, dora.user);

    expire_after(&store, TOKEN_GOOD_FOR + MINUTE).await;
    for token in [bob.token, carl.token] {
        assert_eq!(show(&store, token, None).await, None, "a day is over");
    }
}

async fn an_unbanned_person_gets_their_user_back(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = moderator(&store, "anna").await;
    let (bob, guest) = (arrive(&store, "bob").await, arrive(&store, "carl").await);
    let session = keep(&store, &guest).await;
    let carl = another(&store, session).await;
    for on in [true, false] {
        for who in [&bob, &carl] {
            ban(&store, &anna, who, on).await;
        }
    }
    can_do_nothing(&store, &bob).await;
    let Some(Arrived::As { client, user, .. }) = show(&store, bob.token, None).await else {
        panic!("bob is let in");
    };
    assert_eq!((client.client, &user), (bob.client.client, &bob.user));
    let again = Somebody { client, ..bob };
    post(&store, &again, hi(&store).await, "back").await;
    // A registered user is not given for a token alone, nor for an ended session.
    for session in [None, Some(session)] {
        assert_eq!(show(&store, carl.token, session).await, None);
    }
    let overtaken = come_back(&store, carl.client, carl.token).await;
    assert_eq!(overtaken, Arrived::Overtaken);
    assert_eq!(
        names(&store.people_online(9).await.unwrap().0),
        ["anna", "bob"]
    );
    let session = sign_in(&store, &carl.user).await;
    assert_eq!(another(&store, session).await.user, carl.user);
}

async fn a_moderators_group_does_not_exist_for_others(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let room = make_group(&store, &bob, "Secrets").await;
    let one = post(&store, &bob, room, "one").await;
    let restrict = |on| ModeratorAction::RestrictGroup { room, on };
    moderate(&store, &anna, restrict(true)).await;
    let targets = [
        Target::Group("secrets".to_owned()),
        Target::Group("!secrets".to_owned()),
        Target::Room(room),
    ];
    for target in &targets {
        let entered = enter(&store, &bob, target.clone()).await;
        assert_eq!(entered, Err(Refused::NoSuchRoom), "{target:?}");
    }
    for name in ["secrets", "!secrets", "!Secrets"] {
        assert_eq!(store.group(name, None).await.unwrap(), None);
    }
    let posted = try_to_post(&store, &bob, room, "two", None).await;
    assert_eq!(posted, Err(Refused::NoSuchRoom));
    let amended = amend(&store, &bob, room, one.id, None).await;
    assert_eq!(amended, Err(Refused::NoSuchMessage));
    let reacted = react(&store, &bob, &one, "👍", true).await;
    assert_eq!(reacted, Err(Refused::NoSuchMessage));
    let opened = store.open_message(bob.user.id, room, one.id, 9);
    assert_eq!(opened.await.unwrap(), None);
    let listed = async |who: Option<&Somebody>| {
        let groups = store.groups(who.map(|who| who.user.id), 50).await.unwrap();
        groups.iter().any(|listed| listed.group.id == room)
    };
    assert!(!listed(None).await && !listed(Some(&bob)).await && listed(Some(&anna)).await);
    let busiest = store.busiest_groups(50).await.unwrap();
    assert!(busiest.iter().all(|busy| busy.group.id != room));
    for beginning in ["", "s", "!", "!s"] {
        let found = store.find_groups(beginning, 50).await.unwrap();
        assert!(found.iter().all(|busy| busy.group.id != room));
    }

    // Others may have a group of that name; moderators can tell the two apart.
    let public = make_group(&store, &bob, "secrets").await;
    assert_ne!(public, room);
    let entered =
        async |who: &Somebody, target: &Target| match enter(&store, who, target.clone()).await {
            Ok(room) => room.id,
            other => panic!("{other:?}"),
        };
    assert_eq!(entered(&bob, &targets[0]).await, public);
    assert_eq!(entered(&anna, &targets[0]).await, public);
    for target in &targets[1..] {
        assert_eq!(entered(&anna, target).await, room);
    }
    let seen = store.group("!SECRETS", Some(anna.user.id)).await.unwrap();
    let kind = RoomKind::Group("!Secrets".to_owned());
    assert_eq!(seen, Some(Room { id: room, kind }));
    post(&store, &anna, room, "among us").await;
    assert_eq!(
        moderate(&store, &anna, restrict(false)).await,
        Moderated::NameTaken
    );
    let away = ModeratorAction::RenameGroup {
        room: public,
        name: GroupName::new("other").unwrap(),
    };
    moderate(&store, &anna, away).await;
    let went = moderate(&store, &anna, restrict(false)).await;
    assert_eq!(went, was_done("opened #Secrets to everybody", None));
    assert_eq!(entered(&bob, &targets[0]).await, room);
}

async fn people_left_in_a_closed_group_are_known_and_learn_nothing_of_it(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let room = make_group(&store, &bob, "apes").await;
    for who in [&anna, &bob] {
        enter(&store, who, Target::Room(room)).await.unwrap();
    }
    let key = Uuid::new_v4();
    let again = async || try_to_post(&store, &bob, room, "hello", Some(key)).await;
    assert!(matches!(again().await, Ok(Posted::New(_))));
    let stale = async || {
        let clients = vec![anna.client, bob.client];
        store.stale_clients(clients).await.unwrap()
    };
    assert_eq!(stale().await, []);
    let restrict = |on| ModeratorAction::RestrictGroup { room, on };
    moderate(&store, &anna, restrict(true)).await;
    assert_eq!(stale().await, [bob.client.client]);
    assert_eq!(again().await, Ok(Posted::Settled));
    moderate(&store, &anna, restrict(false)).await;
    assert_eq!(stale().await, []);
    assert!(matches!(again().await, Ok(Posted::Known(_))));
    moderate(&store, &anna, ModeratorAction::RemoveGroup { room }).await;
    let stale = stale().await;
    assert_eq!(stale.len(), 2);
    assert!(stale.contains(&anna.client.client) && stale.contains(&bob.client.client));
}

async fn a_removed_group_frees_its_name(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let python = group(&store, "python").await;
    post(&store, &bob, python, "one").await;
    let removes = ModeratorAction::RemoveGroup { room: python };
    let went = moderate(&store, &anna, removes.clone()).await;
    assert_eq!(went, was_done("removed #python", None));
    let went = moderate(&store, &anna, removes).await;
    assert_eq!(went, Moderated::Nothing);
    for who in [&anna, &bob] {
        for target in [
            Target::Room(python),
            Target::Group("python".to_owned()),
            Target::Group(format!("~{}", python.0)),
        ] {
            assert_eq!(enter(&store, who, target).await, Err(Refused::NoSuchRoom));
        }
        let posted = try_to_post(&store, who, python, "two", None).await;
        assert_eq!(posted, Err(Refused::NoSuchRoom));
        let groups = store.groups(Some(who.user.id), 50).await.unwrap();
        assert!(groups.iter().all(|listed| listed.group.id != python));
    }
    let busiest = store.busiest_groups(50).await.unwrap();
    assert!(busiest.iter().all(|busy| busy.group.id != python));
    assert!(store.find_groups("~", 9).await.unwrap().is_empty());
    assert_eq!(store.group_record(python).await.unwrap(), None);
    assert_ne!(make_group(&store, &bob, "Python").await, python);
}

async fn a_renamed_group_is_found_by_its_new_name(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    let room = make_group(&store, &bob, "apes").await;
    let renames = |name: &str| ModeratorAction::RenameGroup {
        room,
        name: GroupName::new(name).unwrap(),
    };
    for (name, expected) in [
        ("Python", Moderated::NameTaken),
        ("apes", Moderated::Already),
        ("Apes", was_done("renamed #apes to #Apes", None)),
        ("Monkeys", was_done("renamed #Apes to #Monkeys", None)),
    ] {
        assert_eq!(moderate(&store, &anna, renames(name)).await, expected);
    }
    assert_eq!(store.group("apes", None).await.unwrap(), None);
    let found = store.group("monkeys", None).await.unwrap().unwrap();
    assert_eq!(found.id, room);
    assert_eq!(found.kind, RoomKind::Group("Monkeys".to_owned()));
}

async fn a_moderator_deletes_and_restores_messages_of_others_in_groups(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, bob) = (moderator(&store, "anna").await, arrive(&store, "bob").await);
    // The log names people by their user name.
    rename(&store, &bob, "Bobby").await.unwrap();
    let (hi, room) = (hi(&store).await, private(&store, &bob, &anna).await);
    let one = post(&store, &bob, hi, "one").await;
    assert_eq!(one.author.name, "Bobby");
    let own = post(&store, &bob, hi, "two").await;
    let between = post(&store, &bob, room, "between us").await;
    let edited = amend(&store, &anna, hi, one.id, Some("better")).await;
    assert_eq!(edited, Err(Refused::NotYours));
    let deleted = amend(&store, &anna, room, between.id, None).await;
    assert_eq!(
        deleted,
        Err(Refused::NotYours),
        "in a private room nobody is one"
    );

    let Ok(gone) = amend(&store, &anna, hi, one.id, None).await else {
        panic!("a moderator deletes");
    };
    assert!(gone.deleted && gone.by_moderator && gone.text.is_empty());
    amend(&store, &bob, hi, own.id, None).await.unwrap();
    let restores = |room, message: &Message| ModeratorAction::RestoreMessage {
        room,
        message: message.id,
    };
    let went = moderate(&store, &anna, restores(hi, &own)).await;
    assert_eq!(went, Moderated::Already, "the author's to delete");
    for action in [restores(room, &between), restores(room, &one)] {
        assert_eq!(moderate(&store, &anna, action).await, Moderated::Nothing);
    }
    let went = moderate(&store, &anna, restores(hi, &one)).await;
    let words = format!("restored message {} of bob in #hi", one.id);
    assert_eq!(went, was_done(&words, None));
    let page = store.newest(hi).await.unwrap();
    let expected = Message {
        changed: 5,
        worded: 5,
        ..one.clone()
    };
    assert_eq!(page.messages[0], expected);
    assert!(page.messages[1].deleted && !page.messages[1].by_moderator);
    let mut received = Vec::new();
    for _ in 0..6 {
        received.push(changes.recv().await.unwrap());
    }
    assert_eq!(received[5].message, expected);
    assert_eq!(
        audit_log(&store).await[..2],
        [
            format!("anna {words}"),
            format!("anna deleted message {} of bob in #hi", one.id)
        ]
    );
}

async fn messages_are_searched_by_author_words_and_time(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let (hi, room) = (hi(&store).await, private(&store, &bob, &anna).await);
    post(&store, &anna, room, "pizza between us").await;
    let mut all = Vec::new();
    for (who, text) in [
        (&anna, "Pizza on Thursday"),
        (&bob, "pizza? On thursday"),
        (&bob, "no"),
        (&anna, "gone"),
    ] {
        later_than_now().await;
        all.push(post(&store, who, hi, text).await);
    }
    amend(&store, &anna, hi, all[3].id, None).await.unwrap();
    let search = Search {
        room: hi,
        author: None,
        words: String::new(),
        from: None,
        until: None,
        before: MessageId(i64::MAX),
    };
    let found = async |search: Search| {
        let FoundMessages { messages, .. } = store.message_records(search).await.unwrap();
        let texts = messages.into_iter().map(|record| record.message.text);
        texts.collect::<Vec<_>>()
    };
    // Deleted messages can be read.
    let everything = ["gone", "no", "pizza? On thursday", "Pizza on Thursday"];
    assert_eq!(found(search.clone()).await, everything);
    for (words, author, expected) in [
        ("PIZZA", None, &everything[2..]),
        ("thursday pizza", None, &everything[2..]),
        ("pizza", Some("Bob"), &everything[2..3]),
        ("", Some("anna"), &["gone", "Pizza on Thursday"]),
        ("pizza no", None, &[]),
        ("", Some("nobody"), &[]),
    ] {
        let search = Search {
            words: words.to_owned(),
            author: author.map(str::to_owned),
            ..search.clone()
        };
        assert_eq!(found(search).await, expected, "{words} {author:?}");
    }
    for (from, until, expected) in [
        (Some(1), None, &everything[..3]),
        (None, Some(1), &everything[3..]),
        (Some(1), Some(3), &everything[1..3]),
        (Some(3), Some(3), &[]),
    ] {
        let at = |number: Option<usize>| number.map(|number| all[number].created_at);
        let search = Search {
            from: at(from),
            until: at(until),
            ..search.clone()
        };
        assert_eq!(found(search).await, expected, "{from:?} {until:?}");
    }
    let private = Search {
        room,
        ..search.clone()
    };
    assert_eq!(found(private).await, [""; 0], "what is private stays so");

    // Page by page, to the beginning.
    post_many(&store, &bob, hi, PAGE_MESSAGES).await;
    let first = store.message_records(search.clone()).await.unwrap();
    assert_eq!(first.messages.len(), PAGE_MESSAGES);
    let next = Search {
        before: first.before.unwrap(),
        ..search.clone()
    };
    let next = store.message_records(next).await.unwrap();
    assert_eq!((next.messages.len(), next.before), (4, None));
}

async fn groups_and_people_are_listed_page_by_page(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = moderator(&store, "anna").await;
    for name in ["apes", "bees", "cats"] {
        make_group(&store, &anna, name).await;
    }
    let room = group(&store, "cats").await;
    moderate(
        &store,
        &anna,
        ModeratorAction::RestrictGroup { room, on: true },
    )
    .await;
    let groups = async |beginning, after, limit| {
        let groups = store.group_records(beginning, after, limit).await.unwrap();
        let names = groups.iter().map(|group| group.name.clone());
        let last = groups.last().map(|group| group.key.clone());
        (names.collect::<Vec<_>>(), last.unwrap_or_default())
    };
    let (first, last) = groups("", "", 3).await;
    assert_eq!(first, ["cats", "apes", "bees"]);
    let (next, _) = groups("", &last, 9).await;
    assert_eq!(next, ["events", "hi", "off-topic", "python"]);
    assert_eq!(groups("C", "", 9).await.0, ["cats"]);
    assert_eq!(groups("a", "", 9).await.0, ["apes"]);
    let record = store.group_record(room).await.unwrap().unwrap();
    assert!(record.restricted && record.name == "cats");

    store.add_users(vec![new_user("unseen")]).await.unwrap();
    for name in ["adam", "bob", "zoe"] {
        let (Arrived::As { .. }, _) = try_to_arrive(&store, Some(name)).await else {
            panic!("{name}");
        };
    }
    let people = async |beginning, after, limit| {
        let people = store.person_records(beginning, after, limit).await.unwrap();
        let names = people.into_iter().map(|person| person.user.name);
        names.collect::<Vec<_>>()
    };
    let everybody = people("", "", 99).await;
    assert!(
        everybody.is_sorted() && everybody.len() == 4,
        "{everybody:?}"
    );
    assert_eq!(people("", &everybody[0], 2).await, everybody[1..3]);
    assert_eq!(people("AN", "", 9).await, ["anna"]);
    let people = store.person_records("anna", "", 1).await.unwrap();
    assert!(people[0].standing.moderator && people[0].online);
}
