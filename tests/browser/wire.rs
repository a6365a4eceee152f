//! Somebody at a socket without a browser, for what would take too long by hand.

use overwire::protocol::Dialect;
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::list::List;
use crate::support::wire::{self, Event, Handshake};
use crate::support::{Door, soon};

pub(crate) struct Wire {
    socket: wire::Wire,
    list: List,
}

impl Wire {
    /// Somebody new, in a room.
    pub(crate) async fn connect(server: &Server, path: &str) -> Self {
        let list = List::new(Dialect::V1);
        let handshake = Handshake {
            query: format!("?at={path}"),
            ..list.socket_handshake()
        };
        let socket = Door(server.address).socket(&handshake).await.unwrap();
        let mut wire = Self { socket, list };
        wire.until("the room", |list| list.room.is_some()).await;
        wire
    }

    /// Says all of these, in this order, and waits until all are stored.
    pub(crate) async fn says(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.socket.text(self.list.write(text));
        }
        self.until("what is said to be stored", |list| {
            list.unsettled.is_empty()
        })
        .await;
    }

    /// Sends another action.
    pub(crate) fn does(&self, action: &str, data: &Value) {
        let action = json!({ "action": action, "data": data });
        self.socket.text(action.to_string());
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&List) -> bool) {
        soon(what, async {
            while !is_so(&self.list) {
                match self.socket.next().await {
                    Event::Text(push) => self.list.take(&push),
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
    }
}
