//! Garbage of this Rack, and of nobody else: what carries its label, or a name under its own prefix, and is not needed.

use std::collections::{BTreeSet, HashMap};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListVolumesOptions, RemoveImageOptionsBuilder, RemoveVolumeOptions,
};

use super::{Engine, LABEL_PROCESS, LABEL_RACK, Names, is_missing, reason};

/// Ends and deletes this Rack's containers whose process is not among `known`. Says how many there were.
pub(crate) async fn containers(engine: &Engine, rack: &str, known: &BTreeSet<String>) -> Result<usize, String> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{LABEL_RACK}={rack}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = engine.docker.list_containers(Some(options)).await.map_err(|error| reason(&error))?;
    let mut removed = 0;
    for container in found {
        let labels = container.labels.unwrap_or_default();
        // The engine has looked for the label; twice is right where something is deleted.
        let is_ours = labels.get(LABEL_RACK).is_some_and(|value| value == rack);
        let process = labels.get(LABEL_PROCESS);
        if let (true, Some(process), Some(id)) = (is_ours, process, container.id)
            && !known.contains(process)
        {
            engine.remove(&id).await.map_err(|error| reason(&error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Deletes the volumes of an app.
pub(crate) async fn volumes(engine: &Engine, names: &Names, app: &str) -> Result<(), String> {
    let found = engine.docker.list_volumes(None::<ListVolumesOptions>).await.map_err(|error| reason(&error))?;
    let prefix = names.volumes(app);
    for volume in found.volumes.unwrap_or_default().into_iter().filter(|volume| volume.name.starts_with(&prefix)) {
        match engine.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
            Err(error) if !is_missing(&error) => return Err(reason(&error)),
            _ => {}
        }
    }
    Ok(())
}

/// Takes the names of images away whose app and build are not among `needed`, and with the last name the image. Says how many.
pub(crate) async fn images(engine: &Engine, names: &Names, needed: &BTreeSet<(String, String)>) -> Result<usize, String> {
    let repository = names.repository();
    let options = ListImagesOptionsBuilder::default().all(false).build();
    let found = engine.docker.list_images(Some(options)).await.map_err(|error| reason(&error))?;
    let mut removed = 0;
    for tag in found.into_iter().flat_map(|image| image.repo_tags) {
        let Some((app, build)) = app_and_build(&repository, &tag) else { continue };
        if !needed.contains(&(app.to_owned(), build.to_owned())) {
            remove(engine, &tag).await?;
            removed += 1;
        }
    }
    let ours = format!("{LABEL_RACK}={}", names.rack);
    let filters = HashMap::from([("dangling".to_owned(), vec!["true".to_owned()]), ("label".to_owned(), vec![ours])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    // Steps of builds that nothing names any more.
    for image in engine.docker.list_images(Some(options)).await.map_err(|error| reason(&error))? {
        if image.labels.get(LABEL_RACK) == Some(&names.rack) && image.repo_tags.iter().all(|tag| tag == "<none>:<none>") {
            remove(engine, &image.id).await?;
        }
    }
    Ok(removed)
}

/// The same for the images of one app, or of one of its builds.
pub(crate) async fn images_of(engine: &Engine, names: &Names, app: &str, build: Option<&str>) -> Result<(), String> {
    let repository = names.repository();
    let found = engine.docker.list_images(Some(ListImagesOptionsBuilder::default().build())).await.map_err(|error| reason(&error))?;
    for tag in found.into_iter().flat_map(|image| image.repo_tags) {
        if app_and_build(&repository, &tag).is_some_and(|(owner, of)| owner == app && build.is_none_or(|build| of == build)) {
            remove(engine, &tag).await?;
        }
    }
    Ok(())
}

/// Of `localhost/convox-main-1a2b3c4d/shop/web:B1`: `shop` and `B1`.
fn app_and_build<'a>(repository: &str, tag: &'a str) -> Option<(&'a str, &'a str)> {
    let (app, rest) = tag.strip_prefix(repository)?.split_once('/')?;
    let (_service, build) = rest.rsplit_once(':')?;
    Some((app, build))
}

async fn remove(engine: &Engine, image: &str) -> Result<(), String> {
    let options = RemoveImageOptionsBuilder::default().build();
    match engine.docker.remove_image(image, Some(options), None).await {
        // A container still uses it: next time.
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
        Err(error) if !is_missing(&error) => Err(reason(&error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_under_the_prefix_are_ours() {
        let repository = Names::new("main", "0123456789").repository();
        assert_eq!(app_and_build(&repository, &format!("{repository}shop/web:B1")), Some(("shop", "B1")));
        for other in ["docker.io/library/web:B1", "localhost/convox-main-99999999/shop/web:B1", "<none>:<none>", "localhost/shop/web:B1"] {
            assert_eq!(app_and_build(&repository, other), None, "{other}");
        }
    }
}
