//! A chat that `make_fake_users` fills: the same in both databases, and sound.

use std::collections::BTreeMap;
use std::process::Output;

use overwire::store::checking::{Checked, check};
use overwire::store::{Access, Address, Synchronous};

use crate::moving::Files;
use crate::support::postgres::Database;
use crate::support::program::{ending, make_fake_users};
use crate::support::rows::Rows;

async fn fill(address: &str, arguments: &[&str]) -> Output {
    let mut filling = make_fake_users();
    filling.args(["--count", "200", "--seed", "7", "--database", address]);
    filling.args(arguments);
    ending(filling).await
}

const CHAT: [&str; 4] = ["--rooms", "30", "--messages", "3000"];

/// What the same seed creates in any database.
fn contents(database: &impl Rows) -> Vec<Vec<String>> {
    [
        "select coalesce(r.name, low.name || high.name) || ' ' || u.name || ': ' || m.text
         from messages m join rooms r on r.id = m.room_id join users u on u.id = m.user_id
         left join users low on low.id = r.user_low left join users high on high.id = r.user_high
         order by m.id",
        "select name || coalesce(' ' || display_name, '') from users order by id",
        "select name || coalesce(' ' || topic, '') from rooms where kind = 'group' order by name_key",
        "select s.user_id || ' ' || s.unread || ' ' || count(*) from users_subscribed s
         left join messages m on m.room_id = s.room_id and m.id > s.read_message_id
         group by s.user_id, s.room_id, s.unread order by s.user_id, s.unread, count(*)",
    ]
    .map(|query| database.rows(query))
    .to_vec()
}

#[tokio::test]
async fn a_filled_chat_is_the_same_in_both_databases_and_sound() {
    let files = Files::fresh();
    let (file, database) = (files.address("full.db"), Database::fresh().await);
    for address in [&file, &database.address()] {
        let output = fill(address, &CHAT).await;
        assert!(output.status.success(), "{output:?}");
        let sound = Checked {
            problems: Vec::new(),
            rooms: 68,
            messages: 3_000,
            objects: BTreeMap::new(),
        };
        assert_eq!(check(&Address::from(&**address)).await.unwrap(), sound);
    }
    let here = contents(&files.path("full.db"));
    assert_eq!(here, contents(&database));
    assert!(here.iter().all(|rows| rows.len() >= 30), "{here:?}");

    let unread = "select count(*) from users_subscribed where with_id is not null and unread > 0";
    assert_ne!(files.path("full.db").rows(unread), ["0"]);
    let free = "select count(*) from users where free";
    assert_eq!(files.path("full.db").rows(free), ["20"]);
    let months = "select (max(created_at) - min(created_at)) / 86400000 from messages";
    assert_eq!(files.path("full.db").rows(months), ["179"]);
}

#[tokio::test]
async fn a_chat_in_use_is_not_filled() {
    let files = Files::fresh();
    let (file, database) = (files.address("chat.db"), Database::fresh().await);
    for address in [file, database.address()] {
        let server = overwire::store::open(&address, Synchronous::Full, Access::Server).await;
        let server = server.unwrap();
        server.join(crate::people::NODE).await.unwrap();
        let output = fill(&address, &CHAT).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("a server is running on"), "{words}");
        assert_eq!(server.census().await.unwrap().messages, 0);
        server.close().await;

        assert!(fill(&address, &["--messages", "10"]).await.status.success());
        let again = fill(&address, &["--messages", "10"]).await;
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        let words = String::from_utf8(again.stderr).unwrap();
        assert!(
            words.contains("already has messages; --reset deletes everything in it first"),
            "{words}"
        );
        let anew = fill(&address, &["--messages", "10", "--reset", "--yes"]).await;
        assert!(anew.status.success(), "{anew:?}");
    }
}
