//! Groups: what is said is seen by those who look, in order, as it was typed.

use super::support::Server;

#[tokio::test]
async fn what_anna_says_bob_sees_at_once_and_so_does_anna() {
    let server = Server::start().await;
    let (mut anna, mut bob) = (server.tab().await, server.tab().await);
    anna.says("hello").await;
    bob.sees("hello").await;
    for tab in [&anna, &bob] {
        assert_eq!(tab.messages()[0].author, anna.name());
        assert_eq!(tab.texts(), ["hello"]);
    }
}
