local actions = {}
actions["rerun"] = {
  ["disabled"] = false,
  ["displayName"] = "Read the source again",
  ["iconClass"] = "fa fa-fw fa-sync"
}
return actions
