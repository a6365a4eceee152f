//! Somebody without a window, for what would take hands too long.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::server::Server;

/// Far more than it ever takes.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Wire {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) name: String,
}

impl Wire {
    /// Somebody new, in a room.
    pub(crate) async fn connect(server: &Server, path: &str) -> Self {
        let url = format!("ws://{}/ws/chat/?at={path}", server.address);
        let mut request = url.into_client_request().unwrap();
        let protocol = "overwire.v1".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let mut wire = Self {
            socket,
            name: String::new(),
        };
        let push = wire.heard(|push| push["selector"] == "#logged-user").await;
        let html = push["html"].as_str().unwrap();
        let name = html.split("data-user=\"").nth(1).unwrap();
        wire.name = name.split('"').next().unwrap().to_owned();
        wire.heard(|push| push["selector"] == "#messages-list")
            .await;
        wire
    }

    /// Says all of these, in this order, and waits until all are stored.
    pub(crate) async fn says(&mut self, texts: impl IntoIterator<Item = String>) {
        let mut waiting = 0;
        for text in texts {
            let action = json!({ "action": "New message", "data": { "message": text } });
            let frame = Message::text(action.to_string());
            self.socket.feed(frame).await.unwrap();
            waiting += 1;
        }
        self.socket.flush().await.unwrap();
        let mine = format!("data-user=\"{}\"", self.name);
        while waiting > 0 {
            let push = self.heard(|push| push["swap"] == "append").await;
            // What comes together after a while away is drawn in one.
            waiting -= push["html"].as_str().unwrap().matches(&mine).count();
        }
    }

    async fn heard(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = timeout(DEADLINE, self.socket.next()).await;
            let frame = frame.expect("a push").expect("an open socket").unwrap();
            let Message::Text(text) = frame else { continue };
            let push: Value = serde_json::from_str(&text).unwrap();
            if wanted(&push) {
                return push;
            }
        }
    }
}
