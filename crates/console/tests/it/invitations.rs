//! Who becomes a member, and by what. Whoever invites has the code too: it opens nobody's account.

use serde_json::{Value, json};

use crate::Door;
use crate::limits::{Browser, PASSWORD, cookie, with_password};

/// An organization of one's own, and its invitation of `email`: the code that the inviter is given.
pub(crate) fn invite_from(door: &Door, key: &str, org: &str, email: &str) -> String {
    let (status, answer) = door.api(key, "POST", &format!("/organizations/{org}/invitations"), &json!({ "email": email, "role": "developer" }));
    assert_eq!(status, 200, "{answer}");
    answer["path"].as_str().unwrap().split_once('#').unwrap().1.to_owned()
}

fn is_empty(door: &Door, action: &str, actor: &str) -> bool {
    door.events_now(|event| event["action"] == action && event["actor"] == actor).is_empty()
}

#[test]
fn an_inviter_gets_into_nobodys_account() {
    let door = Door::open();
    let eve = door.person("eve@example.com", Some(("acme", "developer")));
    assert_eq!(door.api(&eve, "POST", "/organizations", &json!({ "name": "evil" })).0, 200);
    // The first administrator has an API key and no password, as `setup` leaves it.
    let code = invite_from(&door, &eve, "evil", "admin@example.com");
    let mut browser = Browser::at(&door.console);
    let page = browser.post("/console/invitation/open", &format!("code={code}")).text();
    assert!(page.contains("Your password") && !page.contains("Choose a password"), "{page}");
    let taken = browser.post("/console/invitation/accept", &format!("code={code}&org=evil&password={PASSWORD}"));
    assert_eq!((taken.status, cookie(&taken, "__Host-convox")), (403, None), "{}", taken.text());
    assert_eq!(browser.sign_in("admin@example.com", PASSWORD).status, 403, "there is no password still");
    assert!(is_empty(&door, "InvitationAccept", "admin@example.com"));
    // Nor by a key of somebody else, or by one that is less than a person.
    let deploy = json!({ "name": "ci", "kind": "deploy", "organization": "acme" });
    let (_, ci) = door.api(&door.key, "POST", "/keys", &deploy);
    for key in [eve.as_str(), ci["api_key"].as_str().unwrap()] {
        let (status, answer) = door.api(key, "POST", "/invitations/accept", &json!({ "code": code }));
        assert_eq!(status, 403, "{answer}");
    }

    // Whoever it is sees what they are invited to, and accepts with a key of theirs: the whole link will do.
    let link = json!({ "code": format!("https://console.example.com/console/invitation#{code}") });
    let (status, shown) = door.api(&door.key, "POST", "/invitations/open", &link);
    assert_eq!(
        (status, &shown["organization"], &shown["role"], &shown["invited_by"]),
        (200, &json!("evil"), &json!("developer"), &json!("eve@example.com"))
    );
    assert_eq!(door.api(&door.key, "POST", "/invitations/accept", &link), (200, json!({ "organization": "evil", "role": "developer" })));
    let orgs = |key: &str| door.api(key, "GET", "/me", &Value::Null).1["organizations"].clone();
    assert_eq!(orgs(&door.key).as_array().unwrap().len(), 2);
    assert_eq!(door.api(&door.key, "POST", "/invitations/accept", &link).0, 409, "once");
    assert_eq!(door.api(&door.key, "POST", "/invitations/open", &link).0, 409);
    assert_eq!(door.api(&door.key, "DELETE", "/organizations/evil/members/admin@example.com", &Value::Null).0, 200, "and leaves again");
}

#[test]
fn a_new_person_chooses_a_password_and_a_known_one_gives_theirs() {
    let door = Door::open();
    let code = invite_from(&door, &door.key, "acme", "bob@example.com");
    let mut browser = Browser::at(&door.console);
    let page = browser.post("/console/invitation/open", &format!("code={code}")).text();
    assert!(page.contains("Join acme") && page.contains("as developer") && page.contains("Choose a password"), "{page}");
    let joined = browser.post("/console/invitation/accept", &format!("code={code}&org=acme&password={PASSWORD}"));
    assert!(joined.status == 303 && cookie(&joined, "__Host-convox").is_some(), "{}", joined.text());

    // The first administrator gets a password by the link of the server's command line, and accepts with it.
    with_password(&door, "admin@example.com");
    let eve = door.person("eve@example.com", Some(("acme", "developer")));
    assert_eq!(door.api(&eve, "POST", "/organizations", &json!({ "name": "labs" })).0, 200);
    let code = invite_from(&door, &eve, "labs", "admin@example.com");
    let accept = |browser: &mut Browser, password: &str| {
        browser.post("/console/invitation/accept", &format!("code={code}&org=labs&password={password}")).status
    };
    assert_eq!(accept(&mut browser, "not-theirs-at-all"), 403);
    assert_eq!(accept(&mut browser, PASSWORD), 303);
}
