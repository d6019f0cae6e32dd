local pinned = false
for _, adapter in ipairs(obj.spec.adapters or {}) do
  if adapter.fineTuneJob ~= nil and adapter.digest ~= nil then
    pinned = true
  end
end

local actions = {}
actions["promote"] = {
  ["disabled"] = not pinned,
  ["displayName"] = "Serve the newest artifacts that passed their gate",
  ["iconClass"] = "fa fa-fw fa-arrow-up"
}
return actions
