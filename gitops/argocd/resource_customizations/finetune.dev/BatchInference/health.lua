-- The conditions follow kstatus, so one script fits every kind. `make generate` copies it to where Argo CD looks.
local health = {status = "Progressing", message = "Waiting for the operator"}
local status = obj.status

if status == nil or status.conditions == nil then
  return health
end
if obj.metadata.generation ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to look at the edit"
  return health
end

local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end

local function holds(name)
  return found[name] ~= nil and found[name].status == "True"
end

local ready = found["Ready"]
if ready == nil then
  return health
end
health.message = ready.reason
if ready.message ~= nil and ready.message ~= "" then
  health.message = ready.reason .. ": " .. ready.message
end

if holds("Stalled") then
  health.status = "Degraded"
elseif holds("Ready") then
  health.status = "Healthy"
elseif not holds("Reconciling") then
  -- Nothing is wanted at present: spec.suspend, or no replicas.
  health.status = "Suspended"
end
return health
