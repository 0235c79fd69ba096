use super::*;

fn sleeper(folder: &Scratch, life: Life) -> Process {
    let mut command = Command::new("sleep");
    command.arg("60");
    Process::spawn("sleeper", command, &folder.path().join("log"), life).expect("start sleep")
}

#[test]
fn a_dropped_process_is_stopped_and_its_folder_removed() {
    let folder = Scratch::new("test").expect("make a folder");
    let path = folder.path().to_owned();
    for life in [Life::WithUs, Life::Beyond] {
        let process = sleeper(&folder, life);
        let id = process.id();
        assert!(id.is_running());
        drop(process);
        assert!(!id.is_running());
    }
    drop(folder);
    assert!(!path.try_exists().expect("look for the folder"));
}

#[test]
fn a_process_id_given_to_another_process_is_left_alone() {
    let folder = Scratch::new("test").expect("make a folder");
    let process = sleeper(&folder, Life::WithUs);
    let earlier = ProcessId { pid: process.id().pid, started: process.id().started - 1 };
    assert!(!earlier.is_running());
    earlier.signal(Signal::KILL);
    assert!(process.id().is_running());
}

#[test]
fn a_process_that_ends_early_is_reported_with_its_log() {
    let folder = Scratch::new("test").expect("make a folder");
    let mut command = Command::new("sh");
    command.args(["-c", "echo no such disk; exit 3"]);
    let mut process =
        Process::spawn("server", command, &folder.path().join("log"), Life::WithUs).expect("start the shell");
    let error = process.wait_ready(Duration::from_secs(20), || false).expect_err("it ended");
    assert!(error.to_string().contains("no such disk"), "{error}");
}

#[test]
fn folders_of_runs_that_have_ended_are_removed_unless_kept() {
    // No process can have this id: it is above the kernel's largest.
    let base = std::env::temp_dir().join(format!("hydrant-sweep-{}", std::process::id()));
    let (left, kept) = (base.join("hydrant-xtask-2000000000-a-0"), base.join("hydrant-xtask-2000000000-b-0"));
    let other = base.join("hydrant-xtask-notes");
    for folder in [&left, &kept, &other] {
        fs::create_dir_all(folder).expect("make a folder");
    }
    fs::write(kept.join(KEPT), "").expect("mark");
    sweep(&base);
    let there = |path: &Path| path.try_exists().expect("look");
    assert_eq!((there(&left), there(&kept), there(&other)), (false, true, true));
    fs::remove_dir_all(&base).expect("clean up");
}
