//! The address of a server, and what can be requested there.

use std::net::SocketAddr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::soon;
use super::tab::Tab;
use super::wire::{Handshake, Wire};

/// The address of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door(pub(crate) SocketAddr);

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// The same, as it arrived.
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) async fn read(mut stream: TcpStream) -> Self {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.expect("head and body"));
        let (head, body) = (String::from_utf8_lossy(head), &body[4..]);
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: String::from_utf8_lossy(body).into_owned(),
            bytes: body.to_vec(),
        }
    }

    /// The cookie of that name that the answer sets, as the browser sends it.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(header, value)| {
            let is_set = header.eq_ignore_ascii_case("Set-Cookie");
            let cookie = value.split(';').next()?;
            (is_set && cookie.split_once('=')?.0 == name).then_some(cookie)
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl Door {
    pub(crate) async fn get(self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request += &format!("Host: {}\r\n", self.0);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        soon("an answer", self.ask(&request)).await
    }

    /// Sends a form like a page of this server.
    pub(crate) async fn post(
        self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let fields = fields.iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let body = fields.join("&");
        let mut request = format!("POST {path} HTTP/1.1\r\nConnection: close\r\n");
        request += &format!("Host: {}\r\nContent-Length: {}\r\n", self.0, body.len());
        request += "Content-Type: application/x-www-form-urlencoded\r\n";
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        soon("an answer", self.ask(&format!("{request}\r\n{body}"))).await
    }

    async fn ask(self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.0).await.expect("a server listens");
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(stream).await
    }

    /// Sends a file like a page of this server. If the server answers early, the rest is not sent.
    pub(crate) async fn send_file(
        self,
        path: &str,
        headers: &[(&str, &str)],
        file: &[u8],
    ) -> Answer {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nConnection: close\r\nHost: {}\r\n",
            self.0
        );
        request += &format!(
            "Content-Length: {}\r\nOrigin: http://{}\r\n",
            file.len(),
            self.0
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let sending = async {
            let mut stream = TcpStream::connect(self.0).await.expect("a server listens");
            stream
                .write_all(format!("{request}\r\n").as_bytes())
                .await
                .unwrap();
            let _ = stream.write_all(file).await;
            Answer::read(stream).await
        };
        soon("an answer", sending).await
    }
    /// A new tab: a new person, in the first group.
    pub(crate) async fn tab(self) -> Tab {
        self.tab_at("/chat/hi/").await
    }

    /// New tabs, one after the other: one person each, in the first group.
    pub(crate) async fn tabs<const N: usize>(self) -> [Tab; N] {
        let mut tabs = Vec::new();
        for _ in 0..N {
            tabs.push(self.tab().await);
        }
        tabs.try_into().unwrap_or_else(|_| unreachable!())
    }

    /// A new tab at an address.
    pub(crate) async fn tab_at(self, path: &str) -> Tab {
        let mut tab = Tab::load(self, path).await;
        tab.connects().await;
        tab
    }

    /// A new tab of the original design: no subprotocol, only inner HTML.
    pub(crate) async fn plain_tab(self) -> Tab {
        let mut tab = Tab::plain(self);
        tab.connects().await;
        tab
    }

    /// A socket without a page.
    pub(crate) async fn socket(self, handshake: &Handshake) -> Result<Wire, u16> {
        Wire::open(self.0, handshake).await
    }
}
