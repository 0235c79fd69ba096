//! The lines that point other clients at the server of the demo. They can be pasted as they are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::folder::{Folder, REGION, STREAM};

/// The lines, for a server that goes on (`keep`) or has to be started first.
pub(super) fn lines(folder: &Folder, address: SocketAddr, keep: bool) -> String {
    let start = if keep {
        "Try it with your own client, in another terminal:".to_owned()
    } else {
        format!(
            "Try it with your own client. Keep a server running:\n\n  {} demo --keep\n\nand in another terminal:",
            program()
        )
    };
    let (keys, config) = (absolute(&folder.aws_credentials()), absolute(&folder.aws_config()));
    let clients: Vec<String> = clients(&keys, &config, address).iter().map(|block| indented(block)).collect();
    format!("{start}\n\n{}\n\nObjects appear in {} within a second.", clients.join("\n\n"), absolute(&folder.objects()))
}

/// The lines for a shell, one block per client.
fn clients(keys: &str, config: &str, address: SocketAddr) -> [String; 4] {
    let endpoint = format!("http://{address}");
    let environment = format!(
        "# keys and region, for every AWS client in this terminal
export AWS_SHARED_CREDENTIALS_FILE={keys} AWS_CONFIG_FILE={config} AWS_REGION={REGION} AWS_DEFAULT_REGION={REGION}
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE"
    );
    // JSON rather than shorthand, which version 1 reads differently.
    let cli = format!(
        r#"# AWS CLI, version 1 or 2: the file above has both take the data as it stands here
aws firehose put-record --endpoint-url {endpoint} --delivery-stream-name {STREAM} --record '{{"Data":"from the CLI"}}'"#
    );
    let boto3 = format!(
        r#"# boto3
python3 -c 'import boto3; print(boto3.client("firehose", endpoint_url="{endpoint}").put_record(DeliveryStreamName="{STREAM}", Record={{"Data": b"from boto3"}}))'"#
    );
    let javascript = format!(
        r#"# JavaScript, after: npm install @aws-sdk/client-firehose
node -e 'const {{ Firehose }} = require("@aws-sdk/client-firehose"); new Firehose({{ endpoint: "{endpoint}" }}).putRecord({{ DeliveryStreamName: "{STREAM}", Record: {{ Data: Buffer.from("from JavaScript") }} }}).then(console.log)'"#
    );
    [environment, cli, boto3, javascript]
}

fn indented(block: &str) -> String {
    block.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// This program, as it was called.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "hydrant".to_owned(), |name| PathBuf::from(name).display().to_string())
}

/// A path that holds in every working directory, quoted for a shell.
fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    format!("'{}'", path.replace('\'', r"'\''"))
}
