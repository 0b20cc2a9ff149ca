// What a dashboard of ours may be, put together from Grafana's own types. The test compiles each JSON file against it.
import type { AnnotationQuery, Dashboard, DashboardLink, DataQuery, FieldConfig, FieldConfigSource, Panel, VariableModel } from '@grafana/schema';
import type * as bars from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as heat from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as states from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as lines from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has strings where TypeScript has enumerations.
type Json<T> = T extends string ? `${T}` : T extends number ? T : T extends (infer U)[] ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

// The types of Prometheus' queries are not part of the package.
interface Query extends DataQuery {
  editorMode: 'code' | 'builder';
  expr: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  legendFormat: string;
  range: boolean;
}

interface Field<Custom> extends Omit<FieldConfig, 'custom'> {
  custom?: Partial<Custom>;
}

interface Of<Type extends string, Options, Custom> extends Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'title' | 'description'> {
  type: Type;
  title: string;
  description: string;
  options: Partial<Options>;
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Field<Custom> };
  targets: Query[];
}

interface Row {
  type: 'row';
  id: number;
  title: string;
  collapsed: false;
  panels: [];
  gridPos: Panel['gridPos'];
}

// Prometheus' annotations have their query beside Grafana's own keys.
interface Annotation extends Omit<AnnotationQuery, 'target'> {
  expr?: string;
  step?: string;
  tagKeys?: string;
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean;
}

interface Ours extends Omit<Dashboard, 'panels' | 'annotations' | 'templating' | 'links'> {
  panels: (
    | Of<'timeseries', lines.Options, lines.FieldConfig>
    | Of<'stat', stat.Options, {}>
    | Of<'bargauge', bars.Options, {}>
    | Of<'heatmap', heat.Options, heat.FieldConfig>
    | Of<'state-timeline', states.Options, states.FieldConfig>
    | Of<'table', table.Options, table.FieldConfig>
    | Row
  )[];
  annotations: { list: Annotation[] };
  templating: { list: (VariableModel & { definition?: string })[] };
  links: DashboardLink[];
}

export type Checked = Json<Ours>;
