//! One request, one answer: a file, a folder's listing, or what was wrong.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderName, LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use quoit::fs::{EntryKind, File, Folder, Metadata, OpenOptions};
use quoit::time::wall_clock;
use quoit_net::http::Incoming;

use crate::body::Body;
use crate::files::conditional::{self, Decision};
use crate::files::content_type;
use crate::files::listing::{self, Entry};
use crate::files::range::Selection;
use crate::files::target::Target;
use crate::files::validators::Validators;

/// Answers a request for something beneath `root`.
pub(crate) async fn answer(
    root: Rc<Folder>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let is_head = request.method() == Method::HEAD;
    let answered = match try_answer(&root, &request).await {
        Ok(answered) => answered,
        Err(Refusal::Status(status, why)) => text(status, why),
        // The client has gone or the server stops: nobody hears an answer.
        Err(Refusal::Io(error)) if quoit::CarriesCancelled::cancelled(&error).is_some() => {
            return Err(error);
        }
        Err(Refusal::Io(error)) => {
            let (status, why) = of_error(&error);
            text(status, why)
        }
    };
    Ok(if is_head {
        without_body(answered)
    } else {
        answered
    })
}

/// Why there is no file to send.
enum Refusal {
    Status(StatusCode, &'static str),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn try_answer(root: &Folder, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here",
        );
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let target = Target::parse(request.uri().path()).map_err(|error| {
        let why = match error.status() {
            StatusCode::FORBIDDEN => "the path leads out of the folder that is served",
            _ => "the path is not a valid one",
        };
        Refusal::Status(error.status(), why)
    })?;
    let (file, metadata) = find(root, target.relative()).await?;
    if metadata.is_folder() {
        if !target.wants_directory() {
            return Ok(redirect(&target, request.uri().query()));
        }
        let folder = Folder::from(file);
        return match open(&folder, Path::new("index.html")).await {
            Ok((index, metadata)) if metadata.is_file() => Ok(file_answer(
                request,
                Path::new("index.html"),
                index,
                &metadata,
            )),
            // Neither a link that leads out nor too many open files is a reason to show the folder.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error.into()),
            _ => Ok(listing_answer(target.relative(), &folder).await?),
        };
    }
    if target.wants_directory() {
        return Err(Refusal::Status(
            StatusCode::NOT_FOUND,
            "there is no such folder",
        ));
    }
    if !metadata.is_file() {
        return Err(Refusal::Status(
            StatusCode::FORBIDDEN,
            "this is neither a file nor a folder",
        ));
    }
    Ok(file_answer(request, target.relative(), file, &metadata))
}

/// Opens what lies beneath `folder`; a pipe without a writer does not hold us up.
async fn open(folder: &Folder, path: &Path) -> io::Result<(File, Metadata)> {
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = folder.open_beneath(path, &options).await?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// As [`open`]. Of a folder that may be searched and not listed there is the place: it may have an index.
async fn find(root: &Folder, path: &Path) -> io::Result<(File, Metadata)> {
    let refused = match open(root, path).await {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => error,
        opened => return opened,
    };
    let options = OpenOptions::new().read(true).custom_flags(libc::O_PATH);
    let place = root.open_beneath(path, &options).await?;
    let metadata = place.metadata()?;
    if metadata.is_folder() {
        Ok((place, metadata))
    } else {
        Err(refused)
    }
}

fn file_answer(
    request: &Request<Incoming>,
    path: &Path,
    file: File,
    metadata: &Metadata,
) -> Response<Body> {
    let size = metadata.len();
    let now = wall_clock();
    let validators = Validators::new(metadata.modified(), size, metadata.inode());
    let decision = conditional::evaluate(request.method(), request.headers(), &validators, now);
    let mut answer = match decision {
        Decision::PreconditionFailed => {
            return text(
                StatusCode::PRECONDITION_FAILED,
                "the file is another one by now",
            );
        }
        Decision::NotModified => with_status(StatusCode::NOT_MODIFIED, Body::Empty),
        Decision::Proceed { range_applies } => {
            let selection = if range_applies {
                Selection::from_headers(request.headers(), size)
            } else {
                Selection::Full
            };
            let mut answer = match selection {
                Selection::Full => with_status(StatusCode::OK, Body::file(file, 0, size)),
                Selection::Part { first, last } => with_status(
                    StatusCode::PARTIAL_CONTENT,
                    Body::file(file, first, last + 1),
                ),
                Selection::Unsatisfiable => text(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "the file has no such bytes",
                ),
            };
            let headers = answer.headers_mut();
            if let Some(range) = selection.content_range(size) {
                headers.insert(CONTENT_RANGE, range);
            }
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if selection == Selection::Unsatisfiable {
                return answer;
            }
            headers.insert(CONTENT_TYPE, content_type::of(path));
            set_length(&mut answer);
            answer
        }
    };
    let headers = answer.headers_mut();
    headers.insert(ETAG, validators.etag_field());
    insert_some(headers, LAST_MODIFIED, validators.last_modified_field(now));
    answer
}

async fn listing_answer(path: &Path, folder: &Folder) -> io::Result<Response<Body>> {
    let mut entries = Vec::new();
    for entry in folder.entries().await? {
        // Only what would be served is shown, so of a link what it leads to.
        let flags = if entry.kind == EntryKind::Link {
            libc::O_PATH
        } else {
            libc::O_PATH | libc::O_NOFOLLOW
        };
        let options = OpenOptions::new().read(true).custom_flags(flags);
        let opened = folder.open_beneath(&entry.name, &options).await;
        let metadata = match opened {
            Ok(file) => file.metadata(),
            Err(error) => Err(error),
        };
        match metadata {
            Ok(metadata) if metadata.is_file() || metadata.is_folder() => entries.push(Entry {
                name: entry.name.as_bytes().to_vec(),
                is_directory: metadata.is_folder(),
                size: metadata.len(),
                modified: metadata.modified(),
            }),
            Err(error) if !is_left_out(&error) => return Err(error),
            // It has just gone, leads out, or is neither a file nor a folder.
            Ok(_) | Err(_) => {}
        }
    }
    let mut answer = with_status(
        StatusCode::OK,
        Body::Text(listing::page(path, entries).into()),
    );
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    set_length(&mut answer);
    Ok(answer)
}

/// Returns whether what cannot be opened for this reason is left out of a list, as it would not be served either. What
/// would be the next time must not be missing: then there is no list.
fn is_left_out(error: &io::Error) -> bool {
    let is_cancelled = quoit::CarriesCancelled::cancelled(error).is_some();
    !is_cancelled && of_error(error).0 != StatusCode::SERVICE_UNAVAILABLE
}

/// Sends the client to the same folder with a slash at the end, which its links are relative to.
fn redirect(target: &Target, query: Option<&str>) -> Response<Body> {
    let mut location = target.directory_location();
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    let mut answer = text(
        StatusCode::MOVED_PERMANENTLY,
        "this is a folder: add a slash",
    );
    // What the client sent in its request is a header value; escapes are ASCII.
    insert_some(
        answer.headers_mut(),
        LOCATION,
        HeaderValue::try_from(location).ok(),
    );
    answer
}

/// What an error of the file system is to the client.
fn of_error(error: &io::Error) -> (StatusCode, &'static str) {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => {
            (StatusCode::NOT_FOUND, "there is no such file or folder")
        }
        Some(libc::EXDEV | libc::ELOOP) => (
            StatusCode::FORBIDDEN,
            "the path leads out of the folder that is served",
        ),
        Some(libc::EACCES | libc::EPERM | libc::ENXIO) => {
            (StatusCode::FORBIDDEN, "this may not be read")
        }
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the server has too much to do: try again soon",
        ),
        _ => {
            crate::complain(format_args!("a file could not be read: {error}"));
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file could not be read",
            )
        }
    }
}

fn text(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut answer = with_status(status, Body::Text(format!("{status}: {why}\n").into()));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    set_length(&mut answer);
    answer
}

fn with_status(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn set_length(answer: &mut Response<Body>) {
    let length = http_body::Body::size_hint(answer.body())
        .exact()
        .unwrap_or(0);
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
}

/// The same head, with the length it would have had.
fn without_body(answer: Response<Body>) -> Response<Body> {
    answer.map(|_| Body::Empty)
}

fn insert_some(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_leaves_out_what_would_not_be_served_and_nothing_else() {
        let is_left_out = |errno| is_left_out(&io::Error::from_raw_os_error(errno));
        for errno in [libc::ENOENT, libc::EXDEV, libc::ELOOP, libc::EACCES] {
            assert!(is_left_out(errno), "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN] {
            assert!(!is_left_out(errno), "{errno}");
        }
    }
}
