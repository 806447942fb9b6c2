use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Runs `test` against a socket whose requests `answer` takes.
fn with_server<F: Future<Output = ()>>(answer: fn(Request), test: impl FnOnce(PathBuf) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let dir = tempfile::tempdir().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.unwrap(), async {
        let (send, mut requests) = mpsc::channel(1);
        let socket = path(dir.path());
        let listener = bind(&socket).unwrap();
        local.spawn_local(serve(listener, Allowed::at(&socket).unwrap(), send));
        local.spawn_local(async move {
            while let Some(request) = requests.recv().await {
                answer(request);
            }
        });
        test(dir.path().into()).await;
    });
}

fn echo(request: Request) {
    let (method, parameters) = (request.method, request.parameters);
    request.reply.finish(match &*method {
        "echo" => Ok(parameters),
        method => Err(Error::method_not_found(method)),
    });
}

fn in_parts(request: Request) {
    assert!(request.more);
    std::thread::spawn(move || {
        let mut parts = 0..10;
        assert!(parts.all(|n| request.reply.part(json!({ "n": n }), n < 9)));
    });
}

#[test]
fn parameters_go_there_and_back() {
    with_server(echo, |dir| async move {
        let sent = json!({ "name": "isp1", "n": [1, 2] });
        assert_eq!(call(&dir, "echo", sent.clone()).await.unwrap(), sent);
        let error = call(&dir, "nonsense", json!({})).await.unwrap_err();
        let error = error.downcast_ref::<Error>().unwrap();
        assert_eq!(error.name, METHOD_NOT_FOUND);
        assert_eq!(error.parameters["method"], "nonsense");
        assert!(error.to_string().starts_with("unknown method nonsense"));
    });
}

#[test]
fn an_answer_comes_in_parts() {
    with_server(in_parts, |dir| async move {
        let mut seen = Vec::new();
        let take = |part: Value| {
            seen.push(part["n"].as_u64());
            Ok(())
        };
        stream(&dir, "parts", json!({}), take).await.unwrap();
        assert_eq!(seen, (0..10).map(Some).collect::<Vec<_>>());
    });
}

#[test]
fn a_reply_that_is_dropped_means_that_the_daemon_is_stopping() {
    with_server(drop, |dir| async move {
        let error = call(&dir, "echo", json!({})).await.unwrap_err();
        assert_eq!(error.downcast_ref::<Error>().unwrap().name, STOPPING);
    });
}

/// Bytes as they are, and all that comes back before the server hangs up or falls silent.
async fn raw(dir: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path(dir)).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn garbage_is_answered_by_an_error() {
    with_server(echo, |dir| async move {
        let long = vec![b'x'; 70_000];
        let rows: [&[u8]; 7] = [
            b"\0",
            b"{}\0",
            b"[1]\0",
            b"{\"method\": 7}\0",
            b"{\"method\": \"echo\", \"parameters\": 3}\0",
            b"\xff\xfe\0",
            &long,
        ];
        for row in rows {
            let answer = raw(&dir, row).await;
            assert!(
                answer.contains(INVALID_PARAMETER) && answer.ends_with('\0'),
                "{answer:?}"
            );
        }
        let nested = format!("{{\"method\": \"echo\", \"parameters\": {}\0", "[".repeat(60_000));
        assert!(raw(&dir, nested.as_bytes()).await.contains(INVALID_PARAMETER));
    });
}

#[test]
fn a_connection_takes_several_calls_and_those_that_want_no_answer() {
    with_server(echo, |dir| async move {
        let calls =
            b"{\"method\":\"echo\",\"oneway\":true}\0{\"method\":\"echo\",\"parameters\":{\"a\":1}}\0\
                      {\"method\":\"echo\",\"parameters\":null,\"upgrade\":false}\0";
        let answer = raw(&dir, calls).await;
        assert_eq!(answer, "{\"parameters\":{\"a\":1}}\0{\"parameters\":{}}\0");
    });
}

/// Fills the socket with clients that say nothing, and with others that never read.
async fn crowd(dir: &Path, silent: usize, deaf: usize) -> Vec<UnixStream> {
    let mut crowd = Vec::new();
    for n in 0..silent + deaf {
        let mut stream = UnixStream::connect(path(dir)).await.unwrap();
        if n < deaf {
            let long = "x".repeat(50_000);
            let call = format!("{{\"method\":\"echo\",\"parameters\":{{\"a\":\"{long}\"}}}}\0").repeat(20);
            let _ = stream.try_write(call.as_bytes());
            stream.writable().await.unwrap();
        } else {
            let _ = stream.write_all(b"{\"meth").await;
        }
        crowd.push(stream);
    }
    crowd
}

#[test]
fn those_who_ask_are_heard_beside_a_crowd_that_does_not() {
    with_server(echo, |dir| async move {
        let _crowd = crowd(&dir, 150, 50).await;
        let begun = std::time::Instant::now();
        let sent = json!({ "a": 1 });
        assert_eq!(call(&dir, "echo", sent.clone()).await.unwrap(), sent);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}

#[test]
fn who_asks_without_end_is_slowed_down() {
    with_server(echo, |dir| async move {
        let begun = std::time::Instant::now();
        let answer = raw(&dir, "{\"method\":\"echo\"}\0".repeat(164).as_bytes()).await;
        assert_eq!(answer.matches('\0').count(), 164);
        // 64 at once, then one each 5 ms.
        assert!(
            begun.elapsed() >= Duration::from_millis(500),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn the_command_knows_a_daemon_that_has_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let dir = tempfile::tempdir().unwrap();
    runtime.unwrap().block_on(async {
        let missing = call(dir.path(), "echo", json!({})).await.unwrap_err();
        assert!(
            is_gone(&missing) && missing.to_string().contains("uplink run"),
            "{missing:#}"
        );
        drop(bind(&path(dir.path())).unwrap());
        let refused = call(dir.path(), "echo", json!({})).await.unwrap_err();
        assert!(
            is_gone(&refused) && refused.to_string().contains("nobody answers"),
            "{refused:#}"
        );
    });
}

/// Hangs up on so many clients, as [`serve`] does on those that are idle when it is full, then answers.
async fn impatient(listener: UnixListener, hang_ups: usize) {
    for _ in 0..hang_ups {
        drop(listener.accept().await.unwrap());
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 512];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    stream
        .write_all(b"{\"parameters\":{\"n\":0},\"continues\":true}\0{\"par")
        .await
        .unwrap();
}

#[test]
fn the_command_asks_again_only_while_it_has_not_been_heard() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let dir = tempfile::tempdir().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.unwrap(), async {
        local.spawn_local(impatient(bind(&path(dir.path())).unwrap(), 3));
        let mut heard = 0;
        let take = |_| {
            heard += 1;
            Ok(())
        };
        let error = stream(dir.path(), "parts", json!({}), take).await.unwrap_err();
        assert!(
            is_gone(&error) && error.to_string().contains("while answering"),
            "{error:#}"
        );
        assert_eq!(heard, 1, "an answer that has begun is not asked for again");
    });
}
