//! One open socket, read and answered in the background like in a browser.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::soon;

/// How a socket is requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshake {
    /// The path of the socket; `None` for the page's socket.
    pub(crate) path: Option<String>,
    /// With the question mark, or empty.
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    /// In bytes; `None` for the system's default.
    pub(crate) receive_buffer: Option<u32>,
    /// The address to come from, of this machine's.
    pub(crate) from: Option<Ipv4Addr>,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Text(String),
    /// Something that is not in the contract.
    Other(String),
    /// The end, with the close code if the server gave one.
    Closed(Option<u16>),
}

enum Order {
    Send(Message),
    /// Raw bytes, below the frames.
    Raw(Vec<u8>),
    /// While this holds, it neither reads nor answers pings.
    Deaf(bool),
}

/// One open socket. Dropping it cuts the connection without a close frame.
pub(crate) struct Wire {
    orders: UnboundedSender<Order>,
    events: UnboundedReceiver<Event>,
    /// The subprotocol that the server chose.
    pub(crate) protocol: Option<String>,
}

impl Wire {
    /// Opens a socket, or returns the status of the refusal.
    pub(crate) async fn open(address: SocketAddr, handshake: &Handshake) -> Result<Self, u16> {
        match soon("the handshake", Self::attempt(address, handshake)).await {
            Ok(wire) => Ok(wire),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    /// The same, if the server may be down.
    pub(crate) async fn attempt(address: SocketAddr, handshake: &Handshake) -> Result<Self, Error> {
        let path = handshake.path.as_deref().unwrap_or("/ws/chat/");
        let url = format!("ws://{address}{path}{}", handshake.query);
        let mut request = url.into_client_request().expect("an address");
        for (name, value) in &handshake.headers {
            request.headers_mut().append(
                HeaderName::try_from(name.as_str()).unwrap(),
                HeaderValue::try_from(value.as_str()).unwrap(),
            );
        }
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = handshake.receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        if let Some(from) = handshake.from {
            socket.bind((from, 0).into()).unwrap();
        }
        let stream = socket.connect(address).await?;
        let (socket, response) = client_async(request, stream).await?;
        let protocol = response.headers().get("sec-websocket-protocol");
        let (orders, to_do) = unbounded_channel();
        let (tell, events) = unbounded_channel();
        tokio::spawn(live(socket, to_do, tell));
        Ok(Self {
            orders,
            events,
            protocol: protocol.map(|name| name.to_str().unwrap().to_owned()),
        })
    }

    pub(crate) fn text(&self, text: impl Into<String>) {
        self.order(Order::Send(Message::text(text.into())));
    }

    pub(crate) fn binary(&self, bytes: impl Into<Bytes>) {
        self.order(Order::Send(Message::binary(bytes)));
    }

    pub(crate) fn raw(&self, bytes: impl Into<Vec<u8>>) {
        self.order(Order::Raw(bytes.into()));
    }

    pub(crate) fn close(&self) {
        self.order(Order::Send(Message::Close(None)));
    }

    pub(crate) fn deaf(&self, deaf: bool) {
        self.order(Order::Deaf(deaf));
    }

    fn order(&self, order: Order) {
        // A socket closed by the server takes nothing, but what arrived on it can still be read.
        let _ = self.orders.send(order);
    }

    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::Closed(None))
    }

    /// Waits until the server has closed it.
    pub(crate) async fn is_closed(&mut self) {
        soon("the end of the socket", async {
            while !matches!(self.next().await, Event::Closed(_)) {}
        })
        .await;
    }

    /// The next event that has already arrived.
    pub(crate) fn already(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

async fn live(
    mut socket: WebSocketStream<TcpStream>,
    mut orders: UnboundedReceiver<Order>,
    tell: UnboundedSender<Event>,
) {
    let mut deaf = false;
    let mut code = None;
    loop {
        tokio::select! {
            order = orders.recv() => {
                let done = match order {
                    None => return,
                    Some(Order::Send(message)) => socket.send(message).await.is_ok(),
                    Some(Order::Raw(bytes)) => socket.get_mut().write_all(&bytes).await.is_ok(),
                    Some(Order::Deaf(now)) => { deaf = now; true }
                };
                // The reading side decides whether the socket is really closed.
                let _ = done;
            }
            message = socket.next(), if !deaf => {
                let event = match message {
                    Some(Ok(Message::Text(text))) => Event::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(frame))) => {
                        code = frame.map(|frame| u16::from(frame.code));
                        continue;
                    }
                    Some(Ok(other)) => Event::Other(format!("{other:?}")),
                    Some(Err(_)) | None => {
                        let _ = tell.send(Event::Closed(code));
                        return;
                    }
                };
                let _ = tell.send(event);
            }
        }
    }
}
