//! Somebody without a window, for what would take hands too long.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::server::Server;

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

    /// Says all of these, in this order, and waits until the last is stored.
    pub(crate) async fn says(&mut self, texts: impl IntoIterator<Item = String>) {
        let mut last = String::new();
        for text in texts {
            let action = json!({ "action": "New message", "data": { "message": text } });
            self.socket
                .feed(Message::text(action.to_string()))
                .await
                .unwrap();
            last = text;
        }
        self.socket.flush().await.unwrap();
        let last = format!(">{last}</p>");
        self.heard(|push| push["html"].as_str().unwrap().contains(&last))
            .await;
    }

    async fn heard(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self
                .socket
                .next()
                .await
                .expect("the socket stays open")
                .unwrap();
            let Message::Text(text) = frame else { continue };
            let push: Value = serde_json::from_str(&text).unwrap();
            if wanted(&push) {
                return push;
            }
        }
    }
}
