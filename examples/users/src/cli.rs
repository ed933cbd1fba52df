//! `users-cli`: one call of the service for each command, written for people or as lines of JSON.

mod failure;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use highwater_service::version;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

pub use self::failure::Failure;
use self::failure::unread;
use crate::days;
use crate::proto::users_client::UsersClient;
use crate::proto::{
    CreateUserRequest, GetUserRequest, GetVersionRequest, ListUsersRequest, Position, SearchUsersRequest, User,
    UserPage,
};

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer may take. A write may wait for the cluster for longer; what became of it is not known then.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How many users are asked for at once.
const PAGE_SIZE: u32 = 500;

/// Creates and finds users.
#[derive(Debug, Parser)]
#[command(name = "users-cli", version = version::SUMMARY)]
pub struct Cli {
    /// The server, HOST:PORT.
    #[arg(long, env = "ADDRESS", default_value = "127.0.0.1:8080", global = true)]
    address: String,
    /// How answers are written.
    #[arg(long, env = "OUTPUT", value_enum, default_value = "text", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a user.
    Create(Create),
    /// Show the user with exactly this e-mail address.
    Get {
        /// The address.
        email: String,
        #[command(flatten)]
        after: After,
    },
    /// Show all users.
    List {
        #[command(flatten)]
        after: After,
    },
    /// Show the users whom all the conditions given hold for; an empty one holds for all.
    Search(Search),
    /// Show the versions of this program and of the server.
    Version,
}

#[derive(Debug, Args)]
struct Create {
    /// The e-mail address, which no other user has.
    #[arg(long)]
    email: String,
    /// The given name.
    #[arg(long)]
    firstname: String,
    /// The family name.
    #[arg(long)]
    lastname: String,
    /// Where letters go.
    #[arg(long)]
    postaladdress: String,
    /// The day of birth, YYYY-MM-DD; who has none is not found by age.
    #[arg(long)]
    birthdate: Option<String>,
}

#[derive(Debug, Args)]
struct Search {
    /// A part of "FIRST LAST", in any case; empty: any.
    #[arg(long)]
    name: Option<String>,
    /// The lowest age in full years, inclusive; empty: any.
    #[arg(long, value_parser = age)]
    agefrom: Option<Age>,
    /// The highest age in full years, inclusive; empty: any.
    #[arg(long, value_parser = age)]
    ageto: Option<Age>,
    #[command(flatten)]
    after: After,
}

#[derive(Debug, Args)]
struct After {
    /// Wait until the server has read this far, PARTITION/OFFSET as `create` prints it; may be given several times.
    #[arg(long = "min-offset", value_name = "PARTITION/OFFSET", value_parser = position)]
    min_offsets: Vec<Position>,
}

/// An age, if one is given.
#[derive(Debug, Clone, Copy)]
struct Age(Option<u32>);

fn age(text: &str) -> Result<Age, String> {
    if text.is_empty() {
        return Ok(Age(None));
    }
    let years = text.parse().map_err(|_| "a number of years is wanted".to_owned())?;
    Ok(Age(Some(years)))
}

fn position(text: &str) -> Result<Position, String> {
    let parts = text.split_once('/');
    let read = parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    let (partition, offset) = read.ok_or("PARTITION/OFFSET is wanted, as in 2/17")?;
    Ok(Position { partition, offset })
}

type Client = UsersClient<Channel>;

impl Cli {
    /// Runs the command, and writes to standard output.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<(), Failure> {
        let client = connect(&self.address).await;
        let output = self.output;
        match self.command {
            Command::Create(create) => create.run(client?, output).await,
            Command::Get { email, after } => get(client?, email, after, output).await,
            Command::List { after } => list(client?, after, output).await,
            Command::Search(search) => search.run(client?, output).await,
            Command::Version => versions(client, output).await,
        }
    }
}

async fn connect(address: &str) -> Result<Client, Failure> {
    let unreachable = |problem: String| Failure::Unreachable {
        address: address.to_owned(),
        problem,
    };
    let uri = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| unreachable(error.to_string()))?;
    let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE).timeout(ANSWER_DEADLINE);
    let channel = endpoint.connect().await.map_err(|error| unreachable(causes(&error)))?;
    Ok(UsersClient::new(channel))
}

/// An error with all that it comes from.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Create {
    async fn run(self, mut client: Client, output: Output) -> Result<(), Failure> {
        let request = CreateUserRequest {
            email: self.email,
            first_name: self.firstname,
            last_name: self.lastname,
            postal_address: self.postaladdress,
            birthdate: self.birthdate,
        };
        let created = client.create_user(request).await;
        let response = created
            .map_err(|status| Failure::Create(Box::new(status)))?
            .into_inner();
        let (user, position) = (response.user.unwrap_or_default(), response.position.unwrap_or_default());
        let position = format!("{}/{}", position.partition, position.offset);
        match output {
            Output::Text => print(&format!("created {}\nmin-offset {position}\n", user.email)),
            Output::Json => {
                let mut line = as_json(&user);
                line["min_offset"] = position.into();
                print(&format!("{line}\n"))
            }
        }
    }
}

async fn get(mut client: Client, email: String, after: After, output: Output) -> Result<(), Failure> {
    let request = GetUserRequest {
        email,
        min_positions: after.min_offsets,
    };
    let response = client.get_user(request).await.map_err(unread)?.into_inner();
    let user = response.user.unwrap_or_default();
    match output {
        Output::Text => print(&card(&user)),
        Output::Json => print(&format!("{}\n", as_json(&user))),
    }
}

async fn list(mut client: Client, after: After, output: Output) -> Result<(), Failure> {
    let mut request = ListUsersRequest {
        page_size: PAGE_SIZE,
        page_token: String::new(),
        min_positions: after.min_offsets,
    };
    let mut shown = 0;
    loop {
        let page = client.list_users(request).await.map_err(unread)?.into_inner();
        shown += show(&page, output)?;
        if page.next_page_token.is_empty() {
            return count(shown, output);
        }
        request = ListUsersRequest {
            page_size: PAGE_SIZE,
            page_token: page.next_page_token,
            min_positions: page.positions,
        };
    }
}

impl Search {
    /// Whether conditions are given, and all of them are empty: a pattern that is not filled in. Without any there is nothing to search for,
    /// as the server says.
    fn is_for_all(&self) -> bool {
        let name = self.name.as_deref().map(str::is_empty);
        let age = |given: Option<Age>| given.map(|Age(years)| years.is_none());
        let are_empty = [name, age(self.agefrom), age(self.ageto)];
        are_empty.contains(&Some(true)) && !are_empty.contains(&Some(false))
    }

    async fn run(self, mut client: Client, output: Output) -> Result<(), Failure> {
        if self.is_for_all() {
            return list(client, self.after, output).await;
        }
        let mut request = SearchUsersRequest {
            name: self.name.filter(|part| !part.is_empty()),
            age_from: self.agefrom.and_then(|Age(years)| years),
            age_to: self.ageto.and_then(|Age(years)| years),
            page_size: PAGE_SIZE,
            page_token: String::new(),
            min_positions: self.after.min_offsets,
        };
        let mut shown = 0;
        loop {
            let page = client.search_users(request.clone()).await.map_err(unread)?.into_inner();
            shown += show(&page, output)?;
            if page.next_page_token.is_empty() {
                return count(shown, output);
            }
            request.page_token = page.next_page_token;
            request.min_positions = page.positions;
        }
    }
}

/// How long a name looks in a table; longer ones push the rest to the right.
const NAME_WIDTH: usize = 24;
/// The same for an e-mail address.
const EMAIL_WIDTH: usize = 32;

fn show(page: &UserPage, output: Output) -> Result<usize, Failure> {
    let mut text = String::new();
    for user in &page.users {
        let name = format!("{} {}", user.first_name, user.last_name);
        let birthdate = user.birthdate.as_deref().unwrap_or("-");
        // Writing to a text does not fail.
        let _ = match output {
            Output::Text => {
                let (email, address) = (&user.email, &user.postal_address);
                writeln!(
                    text,
                    "{email:EMAIL_WIDTH$}  {name:NAME_WIDTH$}  {birthdate:10}  {address}"
                )
            }
            Output::Json => writeln!(text, "{}", as_json(user)),
        };
    }
    print(&text)?;
    Ok(page.users.len())
}

fn count(shown: usize, output: Output) -> Result<(), Failure> {
    match output {
        Output::Text => print(&format!("{shown} users\n")),
        Output::Json => Ok(()),
    }
}

async fn versions(client: Result<Client, Failure>, output: Output) -> Result<(), Failure> {
    let own = (version::VERSION, version::COMMIT, version::DATE);
    show_version("users-cli", own, output)?;
    let response = client?.get_version(GetVersionRequest {}).await;
    let response = response.map_err(unread)?.into_inner();
    show_version("server", (&response.version, &response.commit, &response.date), output)
}

fn show_version(what: &str, (version, commit, date): (&str, &str, &str), output: Output) -> Result<(), Failure> {
    match output {
        Output::Text => print(&format!("{what}: version {version}, commit {commit}, date {date}\n")),
        Output::Json => {
            let line = json!({ "program": what, "version": version, "commit": commit, "date": date });
            print(&format!("{line}\n"))
        }
    }
}

fn card(user: &User) -> String {
    let birthdate = user.birthdate.as_deref();
    let age = birthdate
        .and_then(days::parse)
        .map(|birth| days::years(birth, days::of_ms(days::now_ms())));
    let birthdate = birthdate
        .zip(age)
        .map_or("-".to_owned(), |(date, age)| format!("{date} (age {age})"));
    format!(
        "email          {}\nname           {} {}\npostal address {}\nbirthdate      {birthdate}\ncreated        {}\n",
        user.email,
        user.first_name,
        user.last_name,
        user.postal_address,
        days::written(user.created_ms)
    )
}

fn as_json(user: &User) -> Value {
    json!({
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "postal_address": user.postal_address,
        "birthdate": user.birthdate,
        "created": days::written(user.created_ms),
    })
}

/// Writes to standard output; that whoever reads it has gone is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsString;

    use highwater_service::settings::parse_from;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        parse_from(line.split(' ').map(OsString::from), None)
    }

    fn search(line: &str) -> Search {
        match parse(line).unwrap().command {
            Command::Search(search) => search,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_search_whose_conditions_are_all_empty_is_for_all() {
        for (conditions, is_for_all) in [
            ("--agefrom= --ageto=", true),
            ("--agefrom=", true),
            ("--ageto=", true),
            ("--name=", true),
            ("--name= --agefrom= --ageto=", true),
            ("--agefrom=0 --ageto=", false),
            ("--agefrom= --ageto=0", false),
            ("--name=a --agefrom= --ageto=", false),
            ("--name= --ageto=3", false),
            ("--min-offset 0/1", false),
        ] {
            let search = search(&format!("users-cli search {conditions}"));
            assert_eq!(search.is_for_all(), is_for_all, "{conditions}");
        }
    }

    #[test]
    fn commands_are_as_they_are_documented() {
        for line in [
            "users-cli create --email a@b --firstname A --lastname B --postaladdress C",
            "users-cli --address h:1 create --email=a@b --firstname=A --lastname=B --postaladdress=C --birthdate=1990-01-01",
            "users-cli get a@b --address h:1",
            "users-cli list --min-offset 1/2 --min-offset 0/7",
            "users-cli search --name=PART",
            "users-cli search --agefrom=20 --ageto=30",
            "users-cli search --agefrom= --ageto=",
            "users-cli version --output json",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for (line, word) in [
            ("users-cli list --min-offset 1", "PARTITION/OFFSET is wanted"),
            ("users-cli search --agefrom=x", "a number of years is wanted"),
            ("users-cli create --email a@b", "--firstname"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
