local suspended = obj.spec.suspend == true
local phase = obj.status ~= nil and obj.status.phase or ""

local actions = {}
actions["suspend"] = {
  -- What has ended has nothing left to pause.
  ["disabled"] = suspended or phase == "Succeeded" or phase == "Failed" or phase == "GateFailed",
  ["displayName"] = "Pause, keeping what was answered",
  ["iconClass"] = "fa fa-fw fa-pause"
}
actions["resume"] = {
  ["disabled"] = not suspended,
  ["displayName"] = "Go on from what was answered",
  ["iconClass"] = "fa fa-fw fa-play"
}
actions["rerun"] = {
  ["disabled"] = suspended,
  ["displayName"] = "Look up model and rows again, retry what failed",
  ["iconClass"] = "fa fa-fw fa-sync"
}
return actions
