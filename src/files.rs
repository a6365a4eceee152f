//! HTTP for files: sending them, and reading them under a policy in which nothing in them runs.
//!
//! `chat` decides who may do which.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::chat::{Chat, NotTaken, Visitor, log_failure};
use crate::metrics::METRICS;
use crate::model::{File, FileId, ResumeToken, Target};
use crate::pictures;
use crate::protocol;
use crate::store::StoredFile;

/// Even a file that is opened as a page runs and loads nothing.
const POLICY: &str = "default-src 'none'; sandbox";
/// The file at an address never changes.
const CACHE: &str = "private, max-age=31536000, immutable";
/// The answer to a request that stands for nobody.
const NOBODY: &str = "You are not signed in. Programs need an account to send files.";
const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
/// The characters that RFC 8187 allows in a name.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Takes a file and answers with its id. It is received by a task of its own, so that an upload that is
/// abandoned is cleaned up after.
pub(crate) async fn take(
    chat: &Arc<Chat>,
    uri: &Uri,
    headers: &HeaderMap,
    visitor: &Visitor,
    body: Body,
) -> Response {
    let query = uri.query().unwrap_or_default();
    let fields: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
    let field = |name: &str| fields.get(name).map(|value| &**value);
    let to = match (field("room"), field("group")) {
        (Some(room), _) => room.parse().map(Target::Room).ok(),
        (None, group) => group.map(|name| Target::Group(name.to_owned())),
    };
    let length = text(headers, header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.parse().ok());
    let tab = text(headers, header::AUTHORIZATION);
    let tab = tab.and_then(|value| value.split_once(' '));
    let tab = tab.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let tab = tab.and_then(|(_, token)| token.parse::<ResumeToken>().ok());
    let taken = async {
        let to = to.ok_or(NotTaken::NoSuchRoom)?;
        let (user, room) = chat.file_sender(tab.as_ref(), visitor, &to).await?;
        if let (Some(limit), Some(length)) = (chat.file_limit(), length)
            && length > limit
        {
            return Err(NotTaken::TooLarge(limit));
        }
        let (chat, name) = (
            Arc::clone(chat),
            field("name").unwrap_or_default().to_owned(),
        );
        let taking = tokio::spawn(async move {
            let body = body.into_data_stream();
            chat.take_file(&user, room, &name, body).await
        });
        taking.await.unwrap_or(Err(NotTaken::Cut))
    };
    match taken.await {
        Ok(file) => {
            METRICS.uploaded("stored");
            let answer = json!({
                "id": file.id.to_string(),
                "name": file.name,
                "url": protocol::file_address(&file),
                "preview": protocol::picture_address(&file),
            });
            (StatusCode::OK, JSON, answer.to_string()).into_response()
        }
        Err(error) => {
            let status = status(&error);
            if status.is_server_error() {
                METRICS.uploaded("failed");
                log_failure("store a file", &error);
            } else {
                METRICS.uploaded("refused");
            }
            let is_nobody = tab.is_none() && visitor.session.is_none();
            let words = match error {
                NotTaken::Stranger if is_nobody => NOBODY.to_owned(),
                error => error.to_string(),
            };
            let answer = json!({ "error": words });
            (status, JSON, answer.to_string()).into_response()
        }
    }
}

fn status(error: &NotTaken) -> StatusCode {
    match error {
        NotTaken::Off | NotTaken::NoSuchRoom => StatusCode::NOT_FOUND,
        NotTaken::Stranger => StatusCode::UNAUTHORIZED,
        NotTaken::Muted => StatusCode::FORBIDDEN,
        NotTaken::Empty => StatusCode::UNPROCESSABLE_ENTITY,
        NotTaken::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        NotTaken::NoPicture => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        NotTaken::TooMany => StatusCode::TOO_MANY_REQUESTS,
        NotTaken::Cut => StatusCode::BAD_REQUEST,
        NotTaken::Busy | NotTaken::Storage(_) | NotTaken::Store(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// A file, or the thumbnail of a picture. Whoever may not read it gets the answer for one that does not
/// exist.
pub(crate) async fn read(
    chat: &Chat,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
    visitor: &Visitor,
) -> Response {
    let found = match id.parse::<FileId>() {
        Ok(id) => chat.file(id, visitor).await,
        Err(_) => Ok(None),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            log_failure("find a file", &error);
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    let (Some(stored), Some(objects)) = (found, chat.objects()) else {
        return (StatusCode::NOT_FOUND, "This file does not exist.\n").into_response();
    };
    let StoredFile {
        file,
        hash,
        thumbnail,
    } = stored;
    let small = thumbnail.filter(|_| uri.query() == Some(protocol::THUMBNAIL));
    let object = small.as_ref().unwrap_or(&hash);
    let etag = format!("\"{object}\"");
    let mut known = text(headers, header::IF_NONE_MATCH)
        .into_iter()
        .flat_map(|tags| tags.split(','));
    let is_known = known.any(|known| known.trim() == etag);
    let fixed = |response: &mut Response| {
        let headers = response.headers_mut();
        let policy = HeaderValue::from_static(POLICY);
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE));
        let accepts = HeaderValue::from_static("bytes");
        headers.insert(header::ACCEPT_RANGES, accepts);
        if let Ok(etag) = HeaderValue::try_from(&etag) {
            headers.insert(header::ETAG, etag);
        }
        let vary = HeaderValue::from_static("Cookie");
        headers.insert(header::VARY, vary);
    };
    if is_known {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        fixed(&mut response);
        return response;
    }
    let range = match small {
        Some(_) => Ok(None),
        None => part_of(headers, &etag, file.bytes),
    };
    let Ok(range) = range else {
        let whole = [(header::CONTENT_RANGE, format!("bytes */{}", file.bytes))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, whole).into_response();
    };
    let (size, bytes) = match objects.read(object, range.clone()).await {
        Ok(read) => read,
        Err(error) => {
            log_failure("read a file", &error);
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    let media_type = match &small {
        Some(name) => pictures::type_of(name).to_owned(),
        None => file.media_type.clone(),
    };
    let mut response = Body::from_stream(bytes).into_response();
    fixed(&mut response);
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_LENGTH, length.to_string());
    set(header::CONTENT_DISPOSITION, disposition(&file, &media_type));
    set(header::CONTENT_TYPE, media_type);
    if let Some(range) = range {
        let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        set(header::CONTENT_RANGE, part);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A picture is shown, anything else is downloaded. The first of the two names is for programs that do not
/// read the second.
fn disposition(file: &File, media_type: &str) -> String {
    let (how, name) = match file.picture {
        Some(_) => ("inline", pictures::name_as(&file.name, media_type)),
        None => ("attachment", file.name.clone()),
    };
    let is_plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%');
    let plain = name.replace(|c| !is_plain(c), "_");
    let name = utf8_percent_encode(&name, ATTRIBUTE);
    format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{name}")
}

/// The one part of a file that a request asks for, if it does; an error if the file has no such part. A
/// request for several parts gets the whole file, and so does one that continues another version.
fn part_of(headers: &HeaderMap, etag: &str, size: u64) -> Result<Option<Range<u64>>, ()> {
    let continues = text(headers, header::IF_RANGE);
    let asked = text(headers, header::RANGE);
    let asked = asked.filter(|_| continues.is_none_or(|tag| tag == etag));
    let part = asked.and_then(|asked| asked.strip_prefix("bytes=")?.split_once('-'));
    let Some(part) = part else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let range = match (part, number(part.0), number(part.1)) {
        // The last bytes.
        (("", _), _, Some(last)) => size.saturating_sub(last)..size,
        ((_, ""), Some(from), _) => from..size,
        (_, Some(from), Some(to)) if from <= to => from..to.saturating_add(1).min(size),
        _ => return Ok(None),
    };
    match range.is_empty() {
        true => Err(()),
        false => Ok(Some(range)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Picture;

    #[test]
    fn a_part_of_a_file_is_read() {
        #[track_caller]
        fn check(asked: &str, expected: &Result<Option<Range<u64>>, ()>) {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_str(asked).unwrap());
            assert_eq!(&part_of(&headers, "\"a\"", 100), expected, "{asked}");
            headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
            assert_eq!(&part_of(&headers, "\"a\"", 100), expected, "{asked}");
            assert_eq!(part_of(&headers, "\"b\"", 100), Ok(None));
        }
        check("bytes=0-9", &Ok(Some(0..10)));
        check("bytes=90-", &Ok(Some(90..100)));
        check("bytes=90-200", &Ok(Some(90..100)));
        check("bytes=-10", &Ok(Some(90..100)));
        check("bytes=-1000", &Ok(Some(0..100)));
        check("bytes=100-", &Err(()));
        check("bytes=-0", &Err(()));
        for odd in [
            "bytes=9-3",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=-",
        ] {
            check(odd, &Ok(None));
        }
    }

    #[track_caller]
    fn check_name(file: &File, media_type: &str, plain: &str, name: &str) {
        let how = match file.picture {
            Some(_) => "inline",
            None => "attachment",
        };
        let expected = format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{name}");
        assert_eq!(disposition(file, media_type), expected);
    }

    fn file(name: &str) -> File {
        File {
            id: FileId(1),
            name: File::name_of(name),
            media_type: File::ANY_BYTES.to_owned(),
            bytes: 1,
            picture: None,
        }
    }

    #[test]
    fn no_name_leaves_its_place_in_the_header() {
        #[track_caller]
        fn check(name: &str, plain: &str, expected: &str) {
            check_name(&file(name), File::ANY_BYTES, plain, expected);
        }
        check("report.pdf", "report.pdf", "report.pdf");
        check(
            "Übersicht 50%.pdf",
            "_bersicht 50_.pdf",
            "%C3%9Cbersicht%2050%25.pdf",
        );
        check("../../etc/passwd", "passwd", "passwd");
        check("..\\..\\a b.txt", "a b.txt", "a%20b.txt");
        let cookie = "aSet-Cookie%3A%20b%3Dc";
        check("a\r\nSet-Cookie: b=c", "aSet-Cookie: b=c", cookie);
        check("\u{202e}gpj.exe", "gpj.exe", "gpj.exe");
        check("\"; a=\"b", "_; a=_b", "%22%3B%20a%3D%22b");
        check("...", "file", "file");
        check("", "file", "file");
        let long = format!("{}.pdf", "x".repeat(200));
        assert_eq!(File::name_of(&long).chars().count(), File::NAME_CHARACTERS);
        assert!(File::name_of(&long).ends_with("xxx.pdf"));
    }

    #[test]
    fn a_picture_is_saved_under_a_name_that_opens_it() {
        for (name, media_type, expected) in [
            ("cat.png", "image/png", "cat.png"),
            ("CAT.JPEG", "image/jpeg", "CAT.JPEG"),
            // The smaller copy.
            ("cat.png", "image/jpeg", "cat.jpg"),
            ("page.html", "image/png", "page.html.png"),
            ("v1.2", "image/webp", "v1.2.webp"),
            ("cat", "image/gif", "cat.gif"),
        ] {
            let mut file = file(name);
            file.picture = Some(Picture {
                width: 1,
                height: 1,
                thumbnail: true,
            });
            check_name(&file, media_type, expected, expected);
        }
    }
}
