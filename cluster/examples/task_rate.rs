//! How many load-balanced tasks a controller passes on: one client and two engines that do nothing, over Unix sockets.
//!
//! `cargo run --release -p cluster --example task_rate -- [TASKS [WINDOW [SETTING]..]]` with 100000 tasks, of which 2000 are on their way
//! at a time, unless told otherwise. Settings are lines for the profile's `[scheduler]`, such as `hwm=1`. The controller is a process of its own on the first core, client and engines share one on the second; their
//! messages are made and signed beforehand. Told are tasks a second, and the processor time that the controller took for each.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::connection::{ClientFile, EngineFile};
use cluster::controller;
use cluster::profile::Profile;
use protocol::{
    Message, RawJson, Received, Session, SocketId, SocketOptions, SocketType, Sockets,
    SocketsBuilder,
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

const REGISTRATION: SocketId = SocketId(0);
const PING: SocketId = SocketId(1);
const PONG: SocketId = SocketId(2);
const TASK: SocketId = SocketId(3);
const PATIENCE: Duration = Duration::from_secs(60);
const ENGINES: [&str; 2] = ["engine-0", "engine-1"];

type Inbox = UnboundedReceiver<Received>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, folder] = &arguments[..]
        && role == "controller"
    {
        pin(0);
        let arguments = controller::Arguments {
            profile_dir: folder.into(),
            cluster_id: String::new(),
            reuse: false,
            tied: true,
        };
        return Ok(controller::main(arguments, || None)?);
    }
    let number = |at: usize, default| match arguments.get(at) {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let (tasks, window) = (number(0, 100_000)?, number(1, 2000)?);
    let folder = tempfile::tempdir()?;
    let settings = arguments.get(2..).unwrap_or_default().join("\n");
    std::fs::write(
        Profile::at(folder.path()).settings_path(),
        format!("[scheduler]\n{settings}\n"),
    )?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("controller")
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut ready)?;
    pin(1);
    let measured = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure(
            &folder.path().join("security"),
            &child,
            tasks,
            window,
        ));
    // It ends with its standard input.
    drop(child.stdin.take());
    child.wait()?;
    measured
}

async fn measure(
    security: &Path,
    child: &Child,
    tasks: usize,
    window: usize,
) -> Result<(), Box<dyn Error>> {
    let client = ClientFile::read(&security.join("ipcontroller-client.json"))?;
    let engine = EngineFile::read(&security.join("ipcontroller-engine.json"))?;
    let session = Session::new(&client.common.key);
    let mut engines = Vec::new();
    for uuid in ENGINES {
        engines.push(join(uuid, &engine, &session).await?);
    }
    let named = SocketOptions {
        identity: Some(Bytes::from_static(b"client")),
        ..SocketOptions::default()
    };
    let (sockets, mut inbox) = SocketsBuilder::new()
        .connect(TASK, SocketType::DEALER, client.endpoint(client.task))
        .options(TASK, named)
        .start()?;
    let mut requests = Vec::with_capacity(tasks);
    let mut replies = HashMap::with_capacity(tasks);
    for _ in 0..tasks {
        let (request, reply) = exchange(&session);
        let frames = session.encode(&request);
        replies.insert(
            frames.get(2).cloned().ok_or("no header")?,
            session.encode(&reply),
        );
        requests.push(frames);
    }
    println!(
        "message sizes: request {} bytes, reply {} bytes",
        size(&requests[0]),
        replies.values().next().map_or(0, |it| size(it))
    );

    let before = cpu(child)?;
    let began = Instant::now();
    let mut requests = requests.into_iter();
    for request in requests.by_ref().take(window) {
        sockets.send(TASK, request);
    }
    let (mut done, mut batch) = (0, Vec::new());
    let (mut work, mut other_work) = (Vec::new(), Vec::new());
    while done < tasks {
        let [one, other] = &mut engines[..] else {
            return Err("there are two engines".into());
        };
        tokio::select! {
            count = inbox.recv_many(&mut batch, 256) => {
                done += count;
                batch.clear();
                for request in requests.by_ref().take(count) {
                    sockets.send(TASK, request);
                }
            }
            _ = one.1.recv_many(&mut work, 256) => serve(&one.0, &mut work, &mut replies),
            _ = other.1.recv_many(&mut other_work, 256) => serve(&other.0, &mut other_work, &mut replies),
            () = tokio::time::sleep(PATIENCE) => return Err(format!("{done} tasks were answered, then none").into()),
        }
    }
    let took = began.elapsed();
    let cpu = cpu(child)?.saturating_sub(before);
    let each =
        |time: Duration| time.as_secs_f64() * 1e6 / f64::from(u32::try_from(tasks).unwrap_or(1));
    println!(
        "{tasks} tasks in {took:.2?}: {:.0} a second; the controller's processor time is {:.1} us a task, which is {:.0} a second on one core",
        1e6 / each(took),
        each(cpu),
        1e6 / each(cpu)
    );
    let memory = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    for line in memory.lines().filter(|line| line.starts_with("VmHWM")) {
        println!(
            "the controller's memory at its peak: {}",
            line.trim_start_matches("VmHWM:").trim()
        );
    }
    Ok(())
}

/// Registers an engine as ipyparallel's do.
async fn join(
    uuid: &'static str,
    file: &EngineFile,
    session: &Session,
) -> Result<(Sockets, Inbox), Box<dyn Error>> {
    let named = || SocketOptions {
        identity: Some(Bytes::from_static(uuid.as_bytes())),
        ..SocketOptions::default()
    };
    let mut builder = SocketsBuilder::new();
    for (id, socket_type, port) in [
        (REGISTRATION, SocketType::DEALER, file.registration),
        (PING, SocketType::SUB, file.hb_ping),
        (PONG, SocketType::DEALER, file.hb_pong),
    ] {
        builder = builder.connect(id, socket_type, file.endpoint(port));
    }
    let (heart, mut inbox) = builder
        .options(REGISTRATION, named())
        .options(PONG, named())
        .start()?;
    let (sockets, work) = SocketsBuilder::new()
        .connect(TASK, SocketType::DEALER, file.endpoint(file.task))
        .options(TASK, named())
        .start()?;
    let content = RawJson::from_value(&json!({"uuid": uuid}))?;
    let request = session.raw_message("registration_request", content, None);
    heart.send(REGISTRATION, session.encode(&request));
    let registered = async {
        // The first beat after the reply is the engine's word that it is there.
        let mut replied = false;
        while let Some(received) = inbox.recv().await {
            replied |= received.socket == REGISTRATION;
            if received.socket == PING {
                heart.send(PONG, received.frames);
                if replied {
                    break;
                }
            }
        }
    };
    timeout(PATIENCE, registered).await?;
    tokio::spawn(async move {
        while let Some(received) = inbox.recv().await {
            if received.socket == PING {
                heart.send(PONG, received.frames);
            }
        }
    });
    Ok((sockets, work))
}

/// A task and its reply, the size of ipyparallel's.
fn exchange(session: &Session) -> (Message, Message) {
    let request = session
        .raw_message("apply_request", RawJson::empty_object(), None)
        .with_buffers(vec![
            Bytes::from_static(&[7; 60]),
            Bytes::from_static(&[7; 120]),
        ]);
    let date = format!("{:.6}", jiff::Timestamp::now());
    let metadata = json!({
        "started": date, "dependencies_met": true, "engine": ENGINES[0], "is_broadcast": false,
        "is_coalescing": false, "original_msg_id": "", "label": null, "status": "ok",
    });
    let metadata: Map<String, Value> = metadata.as_object().cloned().unwrap_or_default();
    let content =
        RawJson::from_value(&json!({"status": "ok"})).unwrap_or_else(|_| RawJson::empty_object());
    let reply = session
        .raw_message("apply_reply", content, Some(&request.header))
        .with_metadata(metadata)
        .with_buffers(vec![Bytes::from_static(&[7; 60])]);
    (request, reply)
}

/// Answers tasks with the replies that are ready for them.
fn serve(sockets: &Sockets, work: &mut Vec<Received>, replies: &mut HashMap<Bytes, Vec<Bytes>>) {
    for received in work.drain(..) {
        let header = received.frames.get(3);
        if let (Some(mut reply), Some(client)) = (
            header.and_then(|it| replies.remove(it)),
            received.frames.first(),
        ) {
            reply.insert(0, client.clone());
            sockets.send(TASK, reply);
        }
    }
}

fn size(frames: &[Bytes]) -> usize {
    frames.iter().map(Bytes::len).sum()
}

/// Keeps this process's threads, those to come included, on one core, if there is such a core.
fn pin(core: usize) {
    // SAFETY: the set is a plain bit field made of zeros, and is only read.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// The processor time that a child has taken so far.
fn cpu(child: &Child) -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace();
    let ticks: Vec<u64> = fields
        .skip(11)
        .take(2)
        .filter_map(|it| it.parse().ok())
        .collect();
    // SAFETY: asks for a number.
    let rate = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let rate = u64::try_from(rate)?;
    Ok(Duration::from_millis(
        ticks.iter().sum::<u64>() * 1000 / rate,
    ))
}
